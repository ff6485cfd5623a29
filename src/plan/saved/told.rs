//! The changes of a plan's document, as they were before it was written.

use std::net::IpAddr;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Unfit, shape, typed};
use crate::plan::{Action, Change, Delta, Effect, Plan};
use crate::state::{Address, AddressKey, InterfaceName, Route, RouteKey, Tunnel};

/// What of the document the changes can be made of. The rest follows from them.
#[derive(Deserialize)]
pub(super) struct Told {
    changes: Vec<ToldChange>,
    hits: Vec<String>,
    warnings: Vec<String>,
}

impl Told {
    pub(super) fn plan(self) -> Result<Plan, Unfit> {
        let effects = self.changes.iter().map(|change| change.effect).collect();
        let stand_ins = self.changes.iter().filter_map(ToldChange::stand_in);
        let stand_ins = stand_ins.collect::<Result<_, _>>()?;
        let changes = self.changes.into_iter().map(Change::try_from);
        Ok(Plan {
            effects,
            stand_ins,
            changes: changes.collect::<Result<_, _>>()?,
            hits: self.hits,
            warnings: self.warnings,
            ..Plan::default()
        })
    }
}

#[derive(Deserialize)]
struct ToldChange {
    action: Action,
    object: String,
    before: Value,
    after: Value,
    why: Option<String>,
    stand_in: Option<InterfaceName>,
    effect: Effect,
}

#[derive(Deserialize)]
struct TunnelKey {
    name: InterfaceName,
}

#[derive(Deserialize)]
struct AddressPlace {
    device: InterfaceName,
    address: IpAddr,
}

impl TryFrom<ToldChange> for Change {
    type Error = Unfit;

    fn try_from(told: ToldChange) -> Result<Self, Unfit> {
        let some = [&told.after, &told.before]
            .into_iter()
            .find(|value| !value.is_null());
        let key = some.ok_or_else(|| shape("a change of nothing"))?;
        Ok(match told.object.as_str() {
            "tunnel" => Self::Tunnel(typed::<TunnelKey>(key)?.name, told.delta::<Tunnel>()?),
            "address" => {
                let AddressPlace { device, address } = typed(key)?;
                let value: Address = typed(key)?;
                let key = AddressKey::new(device, address, value.peer, value.prefix_len);
                Self::Address(key, told.delta()?)
            }
            "route" => Self::Route(typed::<RouteKey>(key)?, told.delta::<Route>()?),
            other => return Err(shape(format!("{other:?} is no kind of object"))),
        })
    }
}

impl ToldChange {
    /// The tunnel with what stands in for it.
    fn stand_in(&self) -> Option<Result<(InterfaceName, InterfaceName), Unfit>> {
        let stand_in = self.stand_in?;
        Some(typed::<TunnelKey>(&self.after).map(|key| (key.name, stand_in)))
    }

    fn delta<T: DeserializeOwned>(self) -> Result<Delta<T>, Unfit> {
        let why = || self.why.clone().unwrap_or_default();
        Ok(match self.action {
            Action::Create => Delta::Create(typed(&self.after)?),
            Action::Update => Delta::Update {
                from: typed(&self.before)?,
                to: typed(&self.after)?,
            },
            Action::Replace => Delta::Replace {
                why: why(),
                from: typed(&self.before)?,
                to: typed(&self.after)?,
            },
            Action::Delete => Delta::Delete {
                from: typed(&self.before)?,
                along: self.why,
            },
            Action::Restore => Delta::Restore {
                why: why(),
                to: typed(&self.after)?,
            },
        })
    }
}
