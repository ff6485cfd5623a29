//! What differs, object by object, and whose it is.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};

use smol_str::SmolStr;

use super::dependents::{Dependents, is_kernels_link_local};
use super::{Change, Conflict, Delta, Object, Terms, in_place, order, stand_in};
use crate::state::{
    Address, AddressKey, Ascending, Desired, Endpoints, InterfaceName, Observed, Route, RouteKey,
    RouteType, State, Tunnel, Unmet,
};
use crate::topology::Owner;

#[derive(Default)]
pub(super) struct Difference {
    pub(super) changes: Vec<Change>,
    /// Of tunnels that lack a fact.
    pub(super) withheld: Vec<Change>,
    pub(super) conflicts: Vec<Conflict>,
    pub(super) warnings: Vec<String>,
}

pub(super) fn diff(
    desired: &Desired,
    known: Option<&State>,
    observed: &Observed,
    terms: &Terms,
) -> Difference {
    let Desired {
        state: desired,
        unmet,
        ..
    } = desired;
    let mut diff = Diff {
        desired,
        unmet,
        known,
        observed,
        terms,
        alias: terms.owner.alias(),
        left_behind: left_behind(desired, observed, &terms.owner.alias()),
        besides: OnceCell::new(),
        found: Difference::default(),
    };
    diff.tunnels();
    diff.endpoints();
    diff.addresses();
    diff.routes();
    diff.stranded_routes();
    diff.limits();
    diff.withhold();
    diff.found
}

/// Topologies that own tunnels here, and will still own some: one whose every tunnel is adopted is taken over whole.
fn other_owners(desired: &State, observed: &Observed, terms: &Terms) -> BTreeSet<String> {
    let adopted = |name: &InterfaceName| terms.adopt && desired.tunnels.contains_key(name);
    let stay = observed.devices.iter().filter(|(name, _)| !adopted(name));
    let owners = stay.filter_map(|(_, device)| Owner::of_alias(&device.alias));
    owners
        .filter(|other| *other != terms.owner.as_str())
        .map(str::to_owned)
        .collect()
}

/// Stand-ins that a run which was killed has left behind, each with the tunnel that it stood in for.
fn left_behind(
    desired: &State,
    observed: &Observed,
    alias: &str,
) -> BTreeMap<InterfaceName, InterfaceName> {
    let there = &observed.state.tunnels;
    let ours = |name: &InterfaceName| there.get(name).is_some_and(|t| t.alias == alias);
    // Mostly there is none, and the names of a thousand that could be needn't be made up.
    if !there
        .keys()
        .any(|name| stand_in::may_be(*name) && ours(name))
    {
        return BTreeMap::new();
    }
    let tunnels = desired
        .tunnels
        .keys()
        .chain(there.keys().filter(|name| ours(name)));
    let stand_ins = tunnels.filter_map(|tunnel| Some((stand_in::name_for(*tunnel)?, *tunnel)));
    stand_ins
        .filter(|(stand_in, _)| ours(stand_in) && !desired.tunnels.contains_key(stand_in))
        .collect()
}

fn undesired_tunnels<'a>(
    desired: &'a State,
    observed: &'a Observed,
) -> impl Iterator<Item = (&'a InterfaceName, &'a Tunnel)> {
    let mut desired = Ascending::new(&desired.tunnels);
    let there = observed.state.tunnels.iter();
    there.filter(move |(name, _)| desired.get(name).is_none())
}

fn wants_outside(desired: &State) -> bool {
    let ours = |device: &InterfaceName| desired.tunnels.contains_key(device);
    let on_tunnel = |route: &Route| route.devices().any(|device| ours(&device));
    desired.addresses.keys().any(|key| !ours(&key.device))
        || desired.routes.values().any(|route| !on_tunnel(route))
}

/// What there is besides the topology's tunnels.
struct Besides {
    /// Other topologies with tunnels here.
    others: BTreeSet<String>,
    /// Whether the topology has addresses or routes outside its tunnels.
    wants_outside: bool,
}

/// Whose an object with our mark is.
#[derive(PartialEq, Eq)]
enum Whose {
    Ours,
    /// On a tunnel of another topology.
    Theirs,
    /// On no tunnel of ours or theirs: the mark alone tells, and it is the same for every topology that uses it.
    Outside,
}

struct Diff<'a> {
    desired: &'a State,
    unmet: &'a BTreeMap<InterfaceName, Unmet>,
    /// What the topology names; `None`: its file is lost.
    known: Option<&'a State>,
    observed: &'a Observed,
    terms: &'a Terms,
    alias: SmolStr,
    left_behind: BTreeMap<InterfaceName, InterfaceName>,
    /// Asked for only where an object outside the tunnels isn't desired.
    besides: OnceCell<Besides>,
    found: Difference,
}

impl Diff<'_> {
    fn tunnels(&mut self) {
        let mut devices = Ascending::new(&self.observed.devices);
        let mut tunnels = Ascending::new(&self.observed.state.tunnels);
        for (&name, to) in &self.desired.tunnels {
            match (devices.get(&name), tunnels.get(&name)) {
                (None, _) => match self.observed.alternative_names.get(&name) {
                    None => self.tunnel(name, Delta::Create(to.clone())),
                    Some(device) => self.conflict(
                        Object::Tunnel(name),
                        format!("it is an alternative name of the device {device}"),
                        format!("choose another name, or `ip link property del dev {device} altname {name}`"),
                    ),
                },
                (Some(_), Some(from)) if from == to => {}
                (Some(_), Some(from)) if from.alias == self.alias || self.terms.adopt => {
                    self.tunnel(name, in_place::change_tunnel(from, to));
                }
                (Some(_), Some(from)) => {
                    let found = match Owner::of_alias(&from.alias) {
                        Some(owner) => format!("it belongs to the topology {owner:?}"),
                        None if from.alias.is_empty() => {
                            format!("it exists ({}) and has no owner", from.endpoints())
                        }
                        None => format!(
                            "it exists ({}) with the alias {:?}",
                            from.endpoints(),
                            from.alias
                        ),
                    };
                    self.conflict(Object::Tunnel(name), found, adopt_help());
                }
                (Some(device), None) => {
                    let kind = if device.kind.is_empty() {
                        "hardware or loopback"
                    } else {
                        &device.kind
                    };
                    let found = format!("a device of that name exists, of kind {kind}");
                    self.conflict(
                        Object::Tunnel(name),
                        found,
                        "rename one of the two; only an ipip tunnel can be adopted",
                    );
                }
            }
        }
        let goes: Vec<_> = undesired_tunnels(self.desired, self.observed)
            .filter(|(name, from)| self.goes(**name, from))
            .collect();
        if goes.is_empty() {
            return;
        }
        let dependents = Dependents::of(self.observed, self.terms.protocol);
        for (&name, from) in goes {
            let delta = Delta::Delete {
                from: from.clone(),
                along: dependents.words(name),
            };
            self.tunnel(name, delta);
        }
    }

    /// Whether a tunnel that is there is to be deleted.
    fn goes(&self, name: InterfaceName, tunnel: &Tunnel) -> bool {
        let of = self.left_behind.get(&name);
        let to = of.and_then(|of| self.desired.tunnels.get(of));
        // Nobody ever asked for a stand-in, and where it stays, what it stood in for can't be.
        let in_the_way = to.is_some_and(|to| tunnel.endpoints() == to.endpoints());
        tunnel.alias == self.alias
            && !self.desired.tunnels.contains_key(&name)
            && (self.terms.prune || in_the_way)
    }

    fn tunnel(&mut self, name: InterfaceName, delta: Delta<Tunnel>) {
        self.found.changes.push(Change::Tunnel(name, delta));
    }

    fn conflict(&mut self, on: Object, found: impl Into<String>, help: impl Into<String>) {
        self.found.conflicts.push(Conflict {
            on,
            object: on.to_string(),
            found: found.into(),
            help: help.into(),
        });
    }

    /// A tunnel that isn't ours, under another name, with the endpoints that one of ours wants.
    fn endpoints(&mut self) {
        let foreign: BTreeMap<Endpoints, InterfaceName> =
            undesired_tunnels(self.desired, self.observed)
                .filter(|(name, tunnel)| !self.goes(**name, tunnel))
                .map(|(name, tunnel)| (tunnel.endpoints(), *name))
                .collect();
        if foreign.is_empty() {
            return;
        }
        let known = |name: &InterfaceName| !self.unmet.contains_key(name);
        for (name, tunnel) in self.desired.tunnels.iter().filter(|(name, _)| known(name)) {
            if let Some(other) = foreign.get(&tunnel.endpoints()) {
                self.conflict(
                    Object::Tunnel(*name),
                    format!("{other}, which isn't ours, has the same endpoints ({})", tunnel.endpoints()),
                    format!("the kernel allows one tunnel for them: delete {other}, or name ours {other} and adopt it"),
                );
            }
        }
    }

    fn addresses(&mut self) {
        let observed = &self.observed.state.addresses;
        let mut there = Ascending::new(observed);
        for (&key, to) in &self.desired.addresses {
            let Some(from) = there.get(&key) else {
                self.address(key, Delta::Create(to.clone()));
                continue;
            };
            if from == to {
                continue;
            }
            // On a tunnel of ours the device tells the owner, and the kernel can't change an IPv4 address's mark.
            let on_our_tunnel = self.desired.tunnels.contains_key(&key.device);
            let but_for_the_mark = Address {
                protocol: to.protocol,
                ..from.clone()
            };
            // Without marks every address looks alike, and none is known to be ours.
            let marked = self.observed.marks_addresses && from.protocol == to.protocol;
            if on_our_tunnel && but_for_the_mark == *to {
            } else if on_our_tunnel || marked || self.terms.adopt {
                self.address(key, in_place::change_address(key, from, to));
            } else {
                let found = format!(
                    "it exists without our mark (protocol {} in place of {})",
                    from.protocol, to.protocol
                );
                self.conflict(Object::Address(key), found, adopt_help());
            }
        }
        if !self.terms.prune {
            return;
        }
        let mut desired = Ascending::new(&self.desired.addresses);
        let undesired = observed
            .iter()
            .filter(|(key, _)| desired.get(key).is_none());
        for (&key, from) in undesired {
            match self.whose_address(key, from) {
                Some(Whose::Ours) => self.address(key, Delta::delete(from.clone())),
                Some(Whose::Outside)
                    if self.is_ours_outside(
                        |s| s.addresses.contains_key(&key),
                        Object::Address(key),
                    ) =>
                {
                    self.address(key, Delta::delete(from.clone()));
                }
                Some(Whose::Theirs | Whose::Outside) | None => {}
            }
        }
    }

    fn address(&mut self, key: AddressKey, delta: Delta<Address>) {
        self.found.changes.push(Change::Address(key, delta));
    }

    fn whose_address(&self, key: AddressKey, address: &Address) -> Option<Whose> {
        if self.is_being_deleted(key.device)
            || is_kernels_link_local(key, address, self.observed.marks_addresses)
        {
            return None;
        }
        match self.whose_device(key.device) {
            Some(whose) => Some(whose),
            None if self.observed.marks_addresses && address.protocol == self.terms.protocol => {
                Some(Whose::Outside)
            }
            None => None,
        }
    }

    /// Whose a device is; `None`: no topology's.
    fn whose_device(&self, device: InterfaceName) -> Option<Whose> {
        if self.desired.tunnels.contains_key(&device) {
            return Some(Whose::Ours);
        }
        // An alias on anything but a tunnel is somebody's joke, not our mark.
        let alias = &self.observed.state.tunnels.get(&device)?.alias;
        match Owner::of_alias(alias) {
            Some(_) if *alias == self.alias => Some(Whose::Ours),
            Some(_) => Some(Whose::Theirs),
            None => None,
        }
    }

    fn is_being_deleted(&self, device: InterfaceName) -> bool {
        let tunnel = self.observed.state.tunnels.get(&device);
        tunnel.is_some_and(|tunnel| self.goes(device, tunnel))
    }

    fn routes(&mut self) {
        let observed = &self.observed.state.routes;
        let foreign = |route: &Route| route.protocol != self.terms.protocol;
        let duplicates = self.observed.duplicate_routes.iter();
        let shared_keys: BTreeSet<RouteKey> = duplicates
            .filter(|(_, route)| foreign(route))
            .map(|(key, _)| *key)
            .collect();
        let mut there = Ascending::new(observed);
        for (&key, to) in &self.desired.routes {
            let Some(from) = there.get(&key) else {
                self.route(key, Delta::Create(to.clone()));
                continue;
            };
            if from == to {
                continue;
            }
            let shared = shared_keys.contains(&key);
            let ours = from.protocol == self.terms.protocol
                && self.whose_route(from) != Whose::Theirs
                && !shared;
            if ours || (self.terms.adopt && !shared) {
                self.route(
                    key,
                    Delta::Update {
                        from: from.clone(),
                        to: to.clone(),
                    },
                );
            } else {
                let found = if shared {
                    "a second route of another protocol has the same table, prefix, tos and metric"
                        .to_owned()
                } else if from.protocol == self.terms.protocol {
                    "it leads through a tunnel of another topology".to_owned()
                } else {
                    format!(
                        "a route of protocol {} has the same table, prefix, tos and metric",
                        from.protocol
                    )
                };
                let help = if shared {
                    "give ours another `metric`".to_owned()
                } else {
                    format!("{}, or give ours another `metric`", adopt_help())
                };
                self.conflict(Object::Route(key), found, help);
            }
        }
        let duplicates = self.observed.duplicate_routes.iter();
        let extra = duplicates.map(|(key, route)| (*key, route));
        // The kernel refuses to make a route like one that stands behind it.
        let in_the_way = |(key, route): &(RouteKey, &Route)| {
            self.desired.routes.get(key) == Some(route) && observed.get(key) != Some(route)
        };
        let extra = extra.filter(|extra| self.terms.prune || in_the_way(extra));
        let mut desired = Ascending::new(&self.desired.routes);
        let undesired = observed
            .iter()
            .filter(|(key, _)| self.terms.prune && desired.get(key).is_none())
            .map(|(key, route)| (*key, route));
        for (key, from) in undesired.chain(extra).filter(|(_, route)| {
            route.protocol == self.terms.protocol && route.kind != RouteType::Other
        }) {
            if from.devices().any(|device| self.is_being_deleted(device)) {
                continue;
            }
            let delete = match self.whose_route(from) {
                Whose::Ours => true,
                Whose::Theirs => false,
                Whose::Outside => {
                    self.is_ours_outside(|s| s.routes.contains_key(&key), Object::Route(key))
                }
            };
            if delete {
                self.route(key, Delta::delete(from.clone()));
            }
        }
    }

    /// Others' routes that were led over a stand-in, and never back.
    fn stranded_routes(&mut self) {
        if self.left_behind.is_empty() {
            return;
        }
        let wanted = |device| {
            let tunnel = self.left_behind.get(&device);
            let tunnel = tunnel.filter(|_| self.is_being_deleted(device));
            tunnel
                .copied()
                .filter(|tunnel| self.desired.tunnels.contains_key(tunnel))
        };
        let routes = self.observed.state.routes.iter().filter(|(key, route)| {
            route.devices().any(|device| wanted(device).is_some())
                && route.protocol != self.terms.protocol
                && !order::is_kernels_route(route.protocol)
                && !self.desired.routes.contains_key(key)
        });
        let stranded: Vec<Change> = routes
            .map(|(key, from)| {
                let (from, to) = (from.clone(), stand_in::led_over(from, wanted));
                Change::Route(*key, Delta::Update { from, to })
            })
            .collect();
        self.found.changes.extend(stranded);
    }

    fn route(&mut self, key: RouteKey, delta: Delta<Route>) {
        self.found.changes.push(Change::Route(key, delta));
    }

    fn whose_route(&self, route: &Route) -> Whose {
        let mut whose = Whose::Outside;
        for device in route.devices() {
            match self.whose_device(device) {
                Some(Whose::Theirs) => return Whose::Theirs,
                Some(Whose::Ours) => whose = Whose::Ours,
                Some(Whose::Outside) | None => {}
            }
        }
        whose
    }

    /// Whether an undesired object with our mark, outside every tunnel, is ours: surely where the topology names it, or
    /// where no other topology is on this host.
    fn is_ours_outside(&mut self, named_in: impl Fn(&State) -> bool, object: Object) -> bool {
        if self.known.is_some_and(named_in) {
            return true;
        }
        if self.owns_nothing_here() {
            self.found.warnings.push(format!(
                "{object} has our mark, but no tunnel here is {}'s: left alone (destroy with the topology's file takes it)",
                self.terms.owner
            ));
            return false;
        }
        let Besides {
            others,
            wants_outside,
        } = self.besides.get_or_init(|| Besides {
            others: other_owners(self.desired, self.observed, self.terms),
            wants_outside: wants_outside(self.desired),
        });
        if others.is_empty() {
            if self.desired.tunnels.is_empty() && *wants_outside {
                let protocol = self.terms.protocol;
                self.found.warnings.push(format!(
                    "{object} has our mark (protocol {protocol}) and is deleted: if another topology without tunnels \
                     made it, give the two different `route_protocol`s"
                ));
            }
            return true;
        }
        let others: Vec<&str> = others.iter().map(String::as_str).collect();
        let others = others.join(", ");
        let protocol = self.terms.protocol;
        if *wants_outside {
            self.conflict(
                object,
                format!(
                    "it has our mark (protocol {protocol}) and this topology doesn't name it, but the topology {others} \
                     is on this host too: it may be theirs"
                ),
                "give the topologies different `route_protocol`s; if the object is nobody's, delete it by hand",
            );
        } else {
            self.found.warnings.push(format!(
                "{object} has our mark (protocol {protocol}) but may belong to the topology {others}: left alone"
            ));
        }
        false
    }

    /// Whether nothing tells that the owner is at home here: a destruction by a name that may be misspelt.
    fn owns_nothing_here(&self) -> bool {
        let owned = |tunnel: &Tunnel| tunnel.alias == self.alias;
        self.known.is_none() && !self.observed.state.tunnels.values().any(owned)
    }

    /// Sets aside what concerns tunnels that lack a fact.
    fn withhold(&mut self) {
        if self.unmet.is_empty() {
            return;
        }
        let waits = |change: &mut Change| {
            let mut devices = change.devices().into_iter();
            devices.any(|device| self.unmet.contains_key(&device))
        };
        let found = &mut self.found;
        found.withheld.extend(found.changes.extract_if(.., waits));
    }

    /// What this kernel can't do.
    fn limits(&mut self) {
        if !self.observed.marks_addresses
            && self
                .desired
                .addresses
                .keys()
                .any(|key| !self.desired.tunnels.contains_key(&key.device))
        {
            self.found.warnings.push(
                "this kernel can't mark addresses (Linux 5.18 and later can): those outside our tunnels are added but never pruned"
                    .into(),
            );
        }
    }
}

fn adopt_help() -> &'static str {
    "`--adopt` takes it over"
}
