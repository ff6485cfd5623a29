//! One object that differs, and how.

use serde::{Deserialize, Serialize};

use crate::state::{Address, AddressKey, InterfaceName, Route, RouteKey, Tunnel};

/// One object that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A tunnel.
    Tunnel(InterfaceName, Delta<Tunnel>),
    /// An address.
    Address(AddressKey, Delta<Address>),
    /// A route.
    Route(RouteKey, Delta<Route>),
}

/// What a change is about: an object by its kernel's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Object {
    /// A tunnel.
    Tunnel(InterfaceName),
    /// An address.
    Address(AddressKey),
    /// A route.
    Route(RouteKey),
}

impl std::fmt::Display for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tunnel(name) => write!(f, "tunnel {name}"),
            Self::Address(key) => write!(f, "address {key}"),
            Self::Route(key) => write!(f, "route {key}"),
        }
    }
}

/// How an object differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delta<T> {
    /// It isn't there.
    Create(T),
    /// The kernel can change it where it is.
    Update {
        /// As it is.
        from: T,
        /// As it should be.
        to: T,
    },
    /// The kernel can't, so it is deleted and created.
    Replace {
        /// As it is.
        from: T,
        /// As it should be.
        to: T,
        /// Why it can't be changed in place.
        why: String,
    },
    /// It shouldn't be there.
    Delete {
        /// As it is.
        from: T,
        /// What the kernel deletes with it: a tunnel's addresses and routes.
        along: Option<String>,
    },
    /// It is as it should be, but another change makes the kernel drop it: it is put back.
    Restore {
        /// As it was and will be.
        to: T,
        /// What drops it.
        why: String,
    },
}

/// What a change does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Create.
    Create,
    /// Update in place.
    Update,
    /// Delete and create.
    Replace,
    /// Delete.
    Delete,
    /// Put back what another change makes the kernel drop.
    Restore,
}

impl<T> Delta<T> {
    pub(crate) fn delete(from: T) -> Self {
        Self::Delete { from, along: None }
    }

    /// What is done.
    pub fn action(&self) -> Action {
        match self {
            Self::Create(_) => Action::Create,
            Self::Update { .. } => Action::Update,
            Self::Replace { .. } => Action::Replace,
            Self::Delete { .. } => Action::Delete,
            Self::Restore { .. } => Action::Restore,
        }
    }

    /// The object as it is, if it is there.
    pub fn before(&self) -> Option<&T> {
        match self {
            Self::Create(_) => None,
            Self::Update { from, .. } | Self::Replace { from, .. } | Self::Delete { from, .. } => {
                Some(from)
            }
            Self::Restore { to, .. } => Some(to),
        }
    }

    /// The object as it will be, if it will be there.
    pub fn after(&self) -> Option<&T> {
        match self {
            Self::Create(to)
            | Self::Update { to, .. }
            | Self::Replace { to, .. }
            | Self::Restore { to, .. } => Some(to),
            Self::Delete { .. } => None,
        }
    }

    /// Why it is done this way, or what goes with it, where that needs words.
    pub fn why(&self) -> Option<&str> {
        match self {
            Self::Replace { why, .. } | Self::Restore { why, .. } => Some(why),
            Self::Delete { along, .. } => along.as_deref(),
            Self::Create(_) | Self::Update { .. } => None,
        }
    }
}

impl Change {
    /// What is done.
    pub fn action(&self) -> Action {
        match self {
            Self::Tunnel(_, delta) => delta.action(),
            Self::Address(_, delta) => delta.action(),
            Self::Route(_, delta) => delta.action(),
        }
    }

    /// Why it is done this way, or what goes with it, where that needs words.
    pub fn why(&self) -> Option<&str> {
        match self {
            Self::Tunnel(_, delta) => delta.why(),
            Self::Address(_, delta) => delta.why(),
            Self::Route(_, delta) => delta.why(),
        }
    }

    /// What it is about.
    pub fn object(&self) -> Object {
        match self {
            Self::Tunnel(name, _) => Object::Tunnel(*name),
            Self::Address(key, _) => Object::Address(*key),
            Self::Route(key, _) => Object::Route(*key),
        }
    }

    /// The devices that the object is on or leads through, before or after.
    pub(crate) fn devices(&self) -> Vec<InterfaceName> {
        match self {
            Self::Tunnel(name, _) => vec![*name],
            Self::Address(key, _) => vec![key.device],
            Self::Route(_, delta) => {
                let routes = delta.before().into_iter().chain(delta.after());
                routes.flat_map(Route::devices).collect()
            }
        }
    }

    /// What kind of object it is about.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Tunnel(..) => "tunnel",
            Self::Address(..) => "address",
            Self::Route(..) => "route",
        }
    }

    /// The object's key in words.
    pub fn key(&self) -> String {
        match self {
            Self::Tunnel(name, _) => name.to_string(),
            Self::Address(key, delta) => match delta.after().or(delta.before()) {
                Some(address) => format!("{} on {}", address.show(key), key.device),
                None => key.to_string(),
            },
            Self::Route(key, _) => key.to_string(),
        }
    }
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.kind(), self.key())
    }
}
