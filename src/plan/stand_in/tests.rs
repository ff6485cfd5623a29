use super::*;
use crate::plan::testing::{bare_with, steps, terms, wanted};
use crate::plan::tests::observe;
use crate::plan::{plan, tests::FOREIGN};

const BEFORE: &str = "tun1: {local: 192.0.2.1, addresses: [10.0.0.1/24], \
    routes: [{to: 10.1.0.0/16, via: 192.0.2.9, onlink: true}]}";
const AFTER: &str = "tun1: {local: 192.0.2.1, remote: 192.0.2.9, addresses: [10.0.0.1/24], \
    routes: [{to: 10.1.0.0/16, via: 192.0.2.9, onlink: true}]}";

fn state(tunnels: &str) -> State {
    let topology = format!("version: 1\nname: hq\ntunnels:\n  {tunnels}\n");
    wanted(&topology, &bare_with(&["eth0"])).state
}

/// The plan from one topology to another, after something has happened.
fn planned(from: &str, to: &str, happened: impl FnOnce(&mut Observed)) -> Plan {
    let desired = state(to);
    let mut observed = observe(state(from));
    happened(&mut observed);
    let wanted = desired.clone().into();
    plan(&wanted, Some(&desired), &observed, &terms("hq"))
}

/// Also what is others' is led over it, and what comes and goes with the new file.
#[test]
fn carries_everything_until_it_hands_over() {
    let after = AFTER.replace("10.1.0.0/16, ", "10.3.0.0/16, src: 10.0.0.1, ");
    let foreign = |host: &mut Observed| {
        let (key, mut route) = host.state.routes.pop_first().unwrap();
        let to = "10.2.0.0/16".parse().unwrap();
        host.state.routes.insert(key, route.clone());
        route.protocol = FOREIGN;
        host.state.routes.insert(RouteKey { to, ..key }, route);
    };
    let expected = [
        "Prepare tunnel tun1",
        "Prepare address 10.0.0.1/24 on tun1",
        "Prepare route 10.2.0.0/16",
        "Prepare route 10.3.0.0/16",
        "Remove route 10.1.0.0/16",
        "Remove tunnel tun1",
        "Put tunnel tun1",
        "Put address 10.0.0.1/24 on tun1",
        "TakeOver tunnel tun1",
        "Put route 10.2.0.0/16",
        "Put route 10.3.0.0/16",
        "Clear address 10.0.0.1/24 on tun1",
        "Clear tunnel tun1",
    ];
    let mut found = steps(&planned(BEFORE, &after, foreign));
    // The order of the routes is that of the changes.
    found[2..4].sort();
    found[9..11].sort();
    assert_eq!(found, expected);
    assert!(planned(AFTER, BEFORE, |_| {}).stand_ins.len() == 1);
}

#[test]
fn is_told() {
    let plan = planned(BEFORE, AFTER, |_| {});
    let text = plan.text(crate::plan::Style { color: false });
    let line = "-/+ tunnel tun1  (the kernel can't turn a tunnel between multipoint and one remote in place)  \
        (tun1~ stands in)  (traffic: brief)";
    assert!(text.contains(line), "{text}");
}

type Event = fn(&mut Observed);

/// Where it isn't possible, the tunnel is deleted and created.
#[test]
fn is_there_where_it_can_be() {
    let nothing: Event = |_| {};
    let (tun1, longest) = ("tun1: {", "fifteen-bytes-x: {");
    let on_eth0 = AFTER.replace("local:", "device: eth0, local:");
    let cases: &[(&str, String, String, Event, usize)] = &[
        ("as it is", BEFORE.into(), AFTER.into(), nothing, 1),
        ("back", AFTER.into(), BEFORE.into(), nothing, 1),
        ("a device", BEFORE.into(), on_eth0, nothing, 1),
        (
            "the longest name",
            BEFORE.replace(tun1, longest),
            AFTER.replace(tun1, longest),
            nothing,
            1,
        ),
        (
            "the same endpoints",
            AFTER.into(),
            AFTER.replace("local:", "mode: any, local:"),
            nothing,
            0,
        ),
        (
            "down",
            BEFORE.into(),
            "tun1: {local: 192.0.2.1, remote: 192.0.2.9, state: down}".into(),
            nothing,
            0,
        ),
        (
            "endpoints that another leaves",
            format!("{BEFORE}\n  tun2: {{local: 192.0.2.1, remote: 192.0.2.9}}"),
            AFTER.into(),
            nothing,
            0,
        ),
        (
            "on a tunnel that is new",
            BEFORE.into(),
            format!(
                "{}\n  tun2: {{remote: 192.0.2.9}}",
                AFTER.replace("local:", "device: tun2, local:")
            ),
            nothing,
            0,
        ),
        (
            "two that would wait at one place",
            format!("{BEFORE}\n  tun2: {{local: 192.0.2.1, device: eth0}}"),
            format!("{AFTER}\n  tun2: {{local: 192.0.2.1, remote: 192.0.2.9, device: eth0}}"),
            nothing,
            1,
        ),
        (
            "a name that is taken",
            BEFORE.into(),
            AFTER.into(),
            |host| host.add_device("tun1~".parse().unwrap(), 1500),
            0,
        ),
        (
            "an alternative name that is taken",
            BEFORE.into(),
            AFTER.into(),
            |host| {
                let (other, device) = ("tun1~".parse().unwrap(), "eth0".parse().unwrap());
                host.alternative_names.insert(other, device);
            },
            0,
        ),
        (
            "external, which there was none of",
            BEFORE.into(),
            AFTER.into(),
            |host| {
                for tunnel in host.state.tunnels.values_mut() {
                    let Kind::Ipip(ipip) = &mut tunnel.kind;
                    ipip.external = true;
                }
            },
            1,
        ),
        (
            "a route that can't be moved",
            BEFORE.into(),
            AFTER.into(),
            |host| {
                for route in host.state.routes.values_mut() {
                    (route.other_attributes, route.protocol) = (true, FOREIGN);
                }
                let (key, route) = host.state.routes.pop_first().unwrap();
                let to = "10.9.0.0/16".parse().unwrap();
                host.state.routes.insert(RouteKey { to, ..key }, route);
            },
            0,
        ),
    ];
    for (what, from, to, happened, count) in cases {
        let plan = planned(from, to, happened);
        assert!(plan.counts().replace > 0, "{what}: {:?}", plan.conflicts);
        assert_eq!(plan.stand_ins.len(), *count, "{what}: {:?}", plan.stand_ins);
    }
}

#[test]
fn external_has_none() {
    let mut observed = observe(state(BEFORE));
    let mut desired = state(AFTER);
    for tunnel in desired.tunnels.values_mut() {
        let Kind::Ipip(ipip) = &mut tunnel.kind;
        ipip.external = true;
    }
    let to_external = plan(&desired.clone().into(), None, &observed, &terms("hq"));
    assert!(to_external.counts().replace == 1 && to_external.stand_ins.is_empty());
    // What nobody owns before or after would be nobody's when it's left behind.
    for tunnel in observed
        .state
        .tunnels
        .values_mut()
        .chain(desired.tunnels.values_mut())
    {
        tunnel.alias = "".into();
    }
    let (from, to) = (&observed.state.tunnels, &desired.tunnels);
    let pairs = from.values().zip(to.values());
    assert!(
        pairs
            .into_iter()
            .all(|(from, to)| stand_in(from, to).is_none())
    );
}

/// Another run was killed: its stand-in goes, and what is others' leads over the tunnel again, pruned or not.
#[test]
fn one_that_was_left_behind_goes() {
    let left = |host: &mut Observed| {
        let (tun1, stand_in) = ("tun1".parse().unwrap(), "tun1~".parse().unwrap());
        let made = state(AFTER).tunnels.remove(&tun1).unwrap();
        host.add_device(stand_in, 1480);
        host.devices.get_mut(&stand_in).unwrap().alias = made.alias.clone();
        host.state.tunnels.insert(stand_in, made);
        for route in host.state.routes.values_mut() {
            *route = led_over(route, |_| Some(stand_in));
        }
        let (key, mut route) = host.state.routes.pop_first().unwrap();
        route.protocol = FOREIGN;
        let to = "10.2.0.0/16".parse().unwrap();
        host.state.routes.insert(RouteKey { to, ..key }, route);
    };
    for prune in [true, false] {
        let desired = state(AFTER);
        let mut observed = observe(state(BEFORE));
        left(&mut observed);
        let terms = crate::plan::Terms {
            prune,
            ..terms("hq")
        };
        let plan = plan(&desired.clone().into(), Some(&desired), &observed, &terms);
        assert_eq!(plan.conflicts, [], "prune {prune}");
        let end = crate::plan::model::Model::carried_out(&plan, &observed);
        let end = end.state();
        assert_eq!(end.tunnels, desired.tunnels, "prune {prune}");
        let mut routes = end.routes.values();
        assert!(routes.all(|route| {
            route
                .devices()
                .all(|device| desired.tunnels.contains_key(&device))
        }));
        assert_eq!(end.routes.len(), 2, "prune {prune}");
    }
}
