//! What each change does to traffic, found by walking the plan's steps on the model of the kernel.
//!
//! Where it isn't sure that traffic goes on, the change says that it stops.

use super::model::Model;
use super::order::may_drop;
use super::{Change, Delta, Effect, Part, Plan, Step};
use crate::state::{
    Address, AdminState, Ipip, Kind, Observed, Route, RouteKey, RouteType, State, Tunnel, prefixes,
};

/// The effect of each of the plan's changes, in their order.
pub(super) fn effects(plan: &Plan, observed: &Observed) -> Vec<Effect> {
    if !plan.changes.iter().any(may_affect) {
        return vec![Effect::None; plan.changes.len()];
    }
    let model = match may_drop(&plan.changes) {
        true => Model::new(observed),
        false => Model::of_what_changes(plan, observed),
    };
    effects_on(model, plan, &observed.state)
}

pub(super) fn effects_on(model: Model, plan: &Plan, before: &State) -> Vec<Effect> {
    let mut walk = Walk {
        plan,
        before,
        model,
        effects: vec![Effect::None; plan.changes.len()],
        deleted: Vec::new(),
    };
    plan.steps.iter().for_each(|step| walk.step(*step));
    walk.end()
}

struct Walk<'a> {
    plan: &'a Plan,
    before: &'a State,
    model: Model<'a>,
    effects: Vec<Effect>,
    /// Deleted routes that packets took.
    deleted: Vec<Deleted<'a>>,
}

struct Deleted<'a> {
    change: usize,
    key: &'a RouteKey,
    /// Whether another takes over at once.
    leaves_another: bool,
}

impl<'a> Walk<'a> {
    fn step(&mut self, step: Step) {
        let plan: &'a Plan = self.plan;
        let now = self.model.state();
        let effect = match (&plan.changes[step.change], step.part) {
            (Change::Tunnel(_, delta), _) => tunnel(delta),
            (Change::Address(key, delta), part) => {
                address(delta, part, now.addresses.contains_key(key))
            }
            (Change::Route(key, delta), Part::Put) => put_route(key, delta, self.before, now),
            (Change::Route(key, _), Part::Remove) => return self.delete_route(key, step),
            (Change::Route(..), Part::Prepare | Part::TakeOver | Part::Clear) => Effect::None,
        };
        let known = &mut self.effects[step.change];
        *known = effect.max(*known);
        self.model.step(plan, step);
    }

    fn delete_route(&mut self, key: &'a RouteKey, step: Step) {
        let is_there = self.model.state().routes.contains_key(key);
        self.model.step(self.plan, step);
        if is_used(key, self.before) {
            self.deleted.push(Deleted {
                change: step.change,
                key,
                leaves_another: is_there && leads_on(key, self.model.state()),
            });
        }
    }

    fn end(mut self) -> Vec<Effect> {
        for deleted in self.deleted {
            self.effects[deleted.change] = match leads_on(deleted.key, self.model.state()) {
                true if deleted.leaves_another => Effect::None,
                true => Effect::Brief,
                false => Effect::Stops,
            };
        }
        self.effects
    }
}

/// Whether a change could have an effect at all, so that it's worth to make a model.
fn may_affect(change: &Change) -> bool {
    match change {
        Change::Tunnel(_, delta) => !matches!(delta, Delta::Create(_)),
        Change::Address(_, delta) => !matches!(delta, Delta::Create(_)),
        Change::Route(_, delta) => match delta {
            Delta::Create(to) => to.kind != RouteType::Unicast,
            Delta::Update { .. }
            | Delta::Replace { .. }
            | Delta::Delete { .. }
            | Delta::Restore { .. } => true,
        },
    }
}

fn tunnel(delta: &Delta<Tunnel>) -> Effect {
    let (Some(from), to) = (delta.before(), delta.after()) else {
        return Effect::None;
    };
    let Some(to) = to.filter(|to| to.state == AdminState::Up) else {
        return stops_if(from.state == AdminState::Up);
    };
    if from.state == AdminState::Down {
        return Effect::None;
    }
    match delta {
        Delta::Replace { .. } | Delta::Restore { .. } if goes_on(from, to) => Effect::Brief,
        Delta::Update { .. } if goes_on(from, to) => match refuses_more(from, to) {
            true => Effect::Brief,
            false => Effect::None,
        },
        Delta::Create(_)
        | Delta::Update { .. }
        | Delta::Replace { .. }
        | Delta::Delete { .. }
        | Delta::Restore { .. } => Effect::Stops,
    }
}

/// Whether packets from and to the same far end are still this tunnel's.
fn goes_on(from: &Tunnel, to: &Tunnel) -> bool {
    let Kind::Ipip(old) = &from.kind;
    let Kind::Ipip(new) = &to.kind;
    let far_end = old.remote == new.remote || old.remote.is_none() || new.remote.is_none();
    let ways = |ipip: &Ipip| (ipip.local, ipip.external, ipip.encap);
    far_end && ways(old) == ways(new) && (new.device.is_none() || new.device == old.device)
}

/// Whether larger packets than these are refused from now on, which their senders are told.
fn refuses_more(from: &Tunnel, to: &Tunnel) -> bool {
    let Kind::Ipip(old) = &from.kind;
    let Kind::Ipip(new) = &to.kind;
    to.mtu < from.mtu || (new.pmtudisc && !old.pmtudisc)
}

fn address(delta: &Delta<Address>, part: Part, is_there: bool) -> Effect {
    match delta {
        Delta::Create(_) => Effect::None,
        Delta::Delete { .. } => Effect::Stops,
        Delta::Update { from, to } | Delta::Replace { from, to, .. } if !keeps_way(from, to) => {
            Effect::Stops
        }
        // It went with another address before it's put.
        Delta::Update { .. } => match part {
            Part::Put if !is_there => Effect::Brief,
            Part::Put | Part::Remove | Part::Prepare | Part::TakeOver | Part::Clear => Effect::None,
        },
        Delta::Replace { .. } | Delta::Restore { .. } => Effect::Brief,
    }
}

/// Whether the route to the address's network or peer stays.
fn keeps_way(from: &Address, to: &Address) -> bool {
    from.peer == to.peer && (from.noprefixroute || !to.noprefixroute)
}

fn put_route(key: &RouteKey, delta: &Delta<Route>, before: &State, now: &State) -> Effect {
    let (from, to) = match delta {
        Delta::Create(to) => (None, to),
        Delta::Update { from, to } | Delta::Replace { from, to, .. } => (Some(from), to),
        Delta::Restore { .. } => return Effect::Brief,
        Delta::Delete { .. } => return Effect::None,
    };
    if to.kind != RouteType::Unicast {
        return stops_if(takes_over(key, before));
    }
    match from {
        Some(from) if from.kind == RouteType::Unicast => match now.routes.get(key) {
            // It went with something else before it's put.
            None => Effect::Brief,
            Some(_) if is_narrower(from.mtu, to.mtu) => Effect::Brief,
            Some(_) => Effect::None,
        },
        Some(_) | None => Effect::None,
    }
}

fn is_narrower(old: Option<u32>, new: Option<u32>) -> bool {
    new.is_some_and(|new| old.is_none_or(|old| new < old))
}

/// Whether a route that is put here takes packets from one that leads somewhere.
fn takes_over(key: &RouteKey, state: &State) -> bool {
    let mut others = prefixes(key.to.addr()).filter(|to| to.prefix_len() <= key.to.prefix_len());
    let best = others.find_map(|to| preferred(&RouteKey { to, ..*key }, state));
    best.is_some_and(|(other, route)| {
        let stands_before = other.to == key.to && other.metric < key.metric;
        !stands_before && route.kind == RouteType::Unicast
    })
}

/// Whether packets take this route, and it leads somewhere.
fn is_used(key: &RouteKey, state: &State) -> bool {
    preferred(key, state).is_some_and(|(first, route)| {
        first.metric >= key.metric && route.kind == RouteType::Unicast
    })
}

/// Whether there is a route of the same prefix that leads somewhere.
fn leads_on(key: &RouteKey, state: &State) -> bool {
    preferred(key, state).is_some_and(|(_, route)| route.kind == RouteType::Unicast)
}

/// The route of the same table, prefix and TOS that packets take.
fn preferred<'a>(key: &RouteKey, state: &'a State) -> Option<(&'a RouteKey, &'a Route)> {
    state.routes.range(key.any_metric()).next()
}

fn stops_if(stops: bool) -> Effect {
    match stops {
        true => Effect::Stops,
        false => Effect::None,
    }
}

#[cfg(test)]
mod tests {
    use crate::plan::testing::{bare_with, terms, wanted};
    use crate::plan::tests::observe;
    use crate::plan::{Effect, plan};

    const UNICAST: &str = "tunnels: {tun1: {local: 192.0.2.1, remote: 192.0.2.2, \
        addresses: [10.0.0.1/24, 'fd00::1/64'], routes: [10.1.0.0/16]}}";

    /// What each change does that leads from one topology to another, but for those that do nothing.
    fn effects(from: &str, to: &str) -> Vec<String> {
        let topology = |body: &str| format!("version: 1\nname: hq\n{body}\n");
        let bare = bare_with(&["eth0"]);
        let before = wanted(&topology(from), &bare).state;
        let observed = observe(before.clone());
        let desired = wanted(&topology(to), &bare);
        let plan = plan(&desired, Some(&before), &observed, &terms("hq"));
        let changes = plan.changes.iter().enumerate();
        let words = changes.map(|(index, change)| match plan.effect(index) {
            Effect::None => format!("{change}"),
            Effect::Brief => format!("{change}: brief"),
            Effect::Stops => format!("{change}: stops"),
        });
        words.collect()
    }

    #[test]
    fn of_tunnels() {
        let cases: &[(&str, &str, &[&str])] = &[
            ("remote:", "ttl: 9, remote:", &["tunnel tun1"]),
            ("remote:", "fwmark: 9, remote:", &["tunnel tun1"]),
            ("remote:", "mtu: 1400, remote:", &["tunnel tun1: brief"]),
            ("remote:", "mtu: 1490, remote:", &["tunnel tun1"]),
            (
                "remote: 192.0.2.2",
                "remote: 192.0.2.3",
                &["tunnel tun1: stops"],
            ),
            (
                "local: 192.0.2.1",
                "local: 192.0.2.9",
                &["tunnel tun1: stops"],
            ),
            ("remote:", "device: eth0, remote:", &["tunnel tun1: stops"]),
            (
                "remote: 192.0.2.2",
                "remote: any",
                &[
                    "tunnel tun1: brief",
                    "address 10.0.0.1/24 on tun1: brief",
                    "address fd00::1/64 on tun1: brief",
                    "route 10.1.0.0/16: brief",
                ],
            ),
        ];
        for (old, new, expected) in cases {
            let changed = UNICAST.replace(old, new);
            assert_ne!(changed, UNICAST);
            assert_eq!(effects(UNICAST, &changed), *expected, "{old} -> {new}");
        }
        let down = UNICAST.replace(", routes: [10.1.0.0/16]", ", state: down");
        assert_eq!(
            effects(UNICAST, &down),
            [
                "tunnel tun1: stops",
                "route 10.1.0.0/16: stops",
                "address fd00::1/64 on tun1: brief"
            ]
        );
        assert_eq!(
            effects(&down, UNICAST),
            ["tunnel tun1", "route 10.1.0.0/16"]
        );
        assert_eq!(effects(UNICAST, ""), ["tunnel tun1: stops"]);
        assert_eq!(effects(&down, ""), ["tunnel tun1"]);
    }

    #[test]
    fn of_addresses() {
        let on_eth0 = |addresses: &str, routes: &str| {
            format!("addresses: {{eth0: [{addresses}]}}\nroutes: [{routes}]")
        };
        let cases: &[(&str, &str, &[&str])] = &[
            (
                "10.0.0.1/24",
                "{address: 10.0.0.1/24, metric: 5}",
                &["address 10.0.0.1/24 on eth0"],
            ),
            (
                "10.0.0.1/24",
                "{address: 10.0.0.1/24, label: 'eth0:x'}",
                &["address 10.0.0.1/24 on eth0: brief"],
            ),
            (
                "10.0.0.1/24",
                "{address: 10.0.0.1/24, noprefixroute: true}",
                &["address 10.0.0.1/24 on eth0: stops"],
            ),
            (
                "10.0.0.1/24",
                "10.0.0.1/24, 10.0.0.2/24",
                &["address 10.0.0.2/24 on eth0"],
            ),
        ];
        for (old, new, expected) in cases {
            assert_eq!(effects(&on_eth0(old, ""), &on_eth0(new, "")), *expected);
        }
        // The new source would stand behind the old one and go with it, so the old one goes first, and the route with it.
        let route = |src| format!("{{to: 10.1.0.0/16, device: eth0, src: {src}}}");
        assert_eq!(
            effects(
                &on_eth0("10.0.0.1/24", &route("10.0.0.1")),
                &on_eth0("10.0.0.2/24", &route("10.0.0.2"))
            ),
            [
                "address 10.0.0.2/24 on eth0",
                "address 10.0.0.1/24 on eth0: stops",
                "route 10.1.0.0/16: brief"
            ]
        );
    }

    #[test]
    fn of_routes() {
        let routes =
            |routes: &str| format!("addresses: {{eth0: [10.0.0.1/24]}}\nroutes: [{routes}]");
        let via = |more: &str| format!("{{to: 10.1.0.0/16, via: 10.0.0.9, device: eth0{more}}}");
        let blackhole = |to: &str| format!("{{to: {to}, type: blackhole}}");
        let cases: &[(String, String, &[&str])] = &[
            (String::new(), via(""), &["route 10.1.0.0/16"]),
            (via(""), String::new(), &["route 10.1.0.0/16: stops"]),
            (
                via(""),
                via("").replace("10.0.0.9", "10.0.0.8"),
                &["route 10.1.0.0/16"],
            ),
            (
                via(""),
                via(", metric: 7"),
                &["route 10.1.0.0/16 metric 7", "route 10.1.0.0/16"],
            ),
            (
                format!("{}, {}", via(""), via(", metric: 7")),
                via(""),
                &["route 10.1.0.0/16 metric 7"],
            ),
            (via(""), via(", mtu: 1400"), &["route 10.1.0.0/16: brief"]),
            (
                via(""),
                blackhole("10.1.0.0/16"),
                &["route 10.1.0.0/16: stops"],
            ),
            (blackhole("10.1.0.0/16"), via(""), &["route 10.1.0.0/16"]),
            (
                via(""),
                format!("{}, {}", via(""), blackhole("10.1.1.0/24")),
                &["route 10.1.1.0/24: stops"],
            ),
            (
                String::new(),
                blackhole("10.1.1.0/24"),
                &["route 10.1.1.0/24"],
            ),
        ];
        for (old, new, expected) in cases {
            assert_eq!(
                effects(&routes(old), &routes(new)),
                *expected,
                "{old} -> {new}"
            );
        }
    }
}
