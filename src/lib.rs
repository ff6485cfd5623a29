//! tunnelform: a Linux host's IPIP overlay, made to match a YAML file.
#![warn(missing_docs)]

pub mod desired;
pub mod plan;
pub mod state;
pub mod topology;
