//! tunnelform makes a Linux host's IPIP overlay match a YAML file.
//!
//! Data walks one way. [`topology`] reads what a person wrote; [`desired`] makes of it the [`state`] that one host
//! should have; [`kernel`] observes the state that it has, in the same types; [`plan`] compares the two and orders what
//! differs; [`kernel`] carries the plan out; [`reconcile`] is that pass, once round. [`lock`] keeps two passes apart,
//! [`trial`] takes a pass back that nobody confirms, and [`watch`] makes one whenever something may have changed.
//! [`graph`] draws what was read, and [`probe`] asks the hosts at the tunnels' other ends whether they are there;
//! [`watch`] keeps asking, and tells [`desired`] who is silent.
//!
//! `topology`, `state`, `desired`, `plan` and `graph` are pure: no netlink, no files, no clock. Ownership lives on the
//! kernel's objects themselves (a tunnel's alias, a route's protocol), so there is no state file, and a crash at any
//! point leaves something that the next pass understands.
#![warn(missing_docs)]

pub mod capture;
pub mod desired;
pub mod export;
#[cfg(test)]
mod fleet_tests;
pub mod graph;
pub mod kernel;
pub mod lock;
pub mod plan;
pub mod probe;
pub mod reconcile;
pub mod source;
pub mod state;
pub mod topology;
pub mod trial;
pub mod watch;
