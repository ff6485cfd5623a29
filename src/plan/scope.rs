//! What carrying out a plan can have changed, for a snapshot that looks at no more.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::{Change, Delta, Plan};
use crate::state::{IPV6_MIN_MTU, InterfaceName, Path, Tunnel, prefixes};

/// What can be otherwise once a plan is carried out: some devices with the addresses and routes on them, and the ways to
/// some networks.
#[derive(Debug, PartialEq, Eq)]
pub struct Scope {
    devices: BTreeSet<InterfaceName>,
    networks: BTreeSet<IpNet>,
}

impl Scope {
    /// `None`: anything can be otherwise, as something goes or is set down or up, and what the kernel drops or revives with
    /// it is anybody's.
    pub fn of(plan: &Plan) -> Option<Self> {
        let mut scope = Self {
            devices: BTreeSet::new(),
            networks: BTreeSet::new(),
        };
        plan.changes
            .iter()
            .all(|change| scope.takes_in(change))
            .then_some(scope)
    }

    /// False: nobody knows what else a change changes.
    fn takes_in(&mut self, change: &Change) -> bool {
        match change {
            Change::Tunnel(name, delta) => {
                self.devices.insert(*name);
                match delta {
                    Delta::Create(_) => true,
                    Delta::Update { from, to } => keeps_what_is_on_it(from, to),
                    Delta::Replace { .. } | Delta::Delete { .. } | Delta::Restore { .. } => false,
                }
            }
            Change::Address(key, delta) => {
                let addresses = delta.before().into_iter().chain(delta.after());
                self.networks
                    .extend(addresses.filter_map(|address| address.network(key)));
                self.networks.insert(key.local.into());
                match delta {
                    Delta::Create(_) | Delta::Update { .. } => true,
                    Delta::Replace { .. } | Delta::Delete { .. } | Delta::Restore { .. } => false,
                }
            }
            Change::Route(key, _) => {
                self.networks.insert(key.to);
                true
            }
        }
    }

    /// Whether no address and no route is otherwise but on these devices.
    pub fn is_of_devices_alone(&self) -> bool {
        self.networks.is_empty()
    }

    /// The devices that can be otherwise, come or gone.
    pub fn devices(&self) -> &BTreeSet<InterfaceName> {
        &self.devices
    }

    /// Whether packets to an address, which went by `path`, can take another way. The kernel gives a new device a route to
    /// link-local addresses.
    pub fn concerns(&self, address: IpAddr, path: Option<&Path>) -> bool {
        path.is_some_and(|path| self.devices.contains(&path.device))
            || matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
            || prefixes(address).any(|network| self.networks.contains(&network))
    }
}

/// A device that comes up has the routes of its addresses again. Below the least MTU of IPv6 the kernel takes IPv6 off, and
/// with it the sources of routes elsewhere.
fn keeps_what_is_on_it(from: &Tunnel, to: &Tunnel) -> bool {
    let has_ipv6 = |tunnel: &Tunnel| tunnel.mtu >= IPV6_MIN_MTU;
    from.state == to.state && has_ipv6(from) == has_ipv6(to)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::plan;
    use crate::plan::testing::{bare_with, terms, wanted};
    use crate::state::Observed;

    const BEFORE: &str = "name: t
tunnels:
  a: {local: 192.0.2.1, remote: 198.51.100.1, mtu: 1400, addresses: [10.1.0.1/24], routes: [10.2.0.0/16]}
  b: {local: 192.0.2.1, remote: 198.51.100.2, mtu: 1400}
";

    /// A host as [`BEFORE`] says.
    fn host() -> Observed {
        Observed::holding(&wanted(BEFORE, &bare_with(&["eth0"])).state)
    }

    fn scope(replace: &str, with: &str) -> Option<Scope> {
        let topology = BEFORE.replace(replace, with);
        let desired = wanted(&topology, &host());
        let plan = plan(&desired, Some(&desired.state), &host(), &terms("t"));
        assert!(!plan.is_empty(), "{with}");
        Scope::of(&plan)
    }

    fn names(scope: &Scope) -> Vec<String> {
        scope.devices.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn of_what_is_made_or_changed_in_place() {
        let cases: [(&str, &str, &[&str], &[&str]); 4] = [
            (
                "198.51.100.1, mtu: 1400",
                "198.51.100.1, mtu: 1300",
                &["a"],
                &[],
            ),
            ("  b:", "  c: {local: 192.0.2.2}\n  b:", &["c"], &[]),
            (
                "[10.1.0.1/24]",
                "[10.1.0.1/24, 10.7.0.1/24]",
                &[],
                &["10.7.0.0/24", "10.7.0.1/32"],
            ),
            (
                "10.2.0.0/16",
                "10.3.0.0/16",
                &[],
                &["10.2.0.0/16", "10.3.0.0/16"],
            ),
        ];
        for (replace, with, devices, networks) in cases {
            let scope = scope(replace, with).unwrap_or_else(|| panic!("{with}"));
            assert_eq!(names(&scope), devices, "{with}");
            let found: Vec<String> = scope.networks.iter().map(ToString::to_string).collect();
            assert_eq!(found, networks, "{with}");
        }
    }

    #[test]
    fn of_what_may_take_anything_along() {
        let cases = [
            (
                "  b: {local: 192.0.2.1, remote: 198.51.100.2, mtu: 1400}\n",
                "",
            ),
            ("198.51.100.2, ", "198.51.100.2, state: down, "),
            ("198.51.100.2, mtu: 1400", "198.51.100.2, mtu: 1200"),
            ("local: 192.0.2.1, remote: 198.51.100.2", "local: 192.0.2.1"),
            ("10.1.0.1/24", "10.1.0.2/24"),
        ];
        for (replace, with) in cases {
            assert_eq!(scope(replace, with), None, "{with}");
        }
    }

    #[test]
    fn the_ways_that_it_concerns() {
        let scope = scope(
            "routes: [10.2.0.0/16]",
            "routes: [10.2.0.0/16, 203.0.113.0/24]",
        );
        let scope = scope.expect("a route more");
        let concerns = |address: &str| scope.concerns(address.parse().unwrap(), None);
        assert!(concerns("203.0.113.1") && concerns("fe80::1"));
        assert!(!concerns("203.0.114.1") && !concerns("2001:db8::1"));
        let through = |device: &str| Path {
            device: device.parse().unwrap(),
            mtu: 1500,
            prefix_len: 24,
            table: 254,
        };
        let scope = Scope {
            devices: BTreeSet::from(["a".parse().unwrap()]),
            ..scope
        };
        let away = "203.0.114.1".parse().unwrap();
        assert!(scope.concerns(away, Some(&through("a"))));
        assert!(!scope.concerns(away, Some(&through("eth0"))));
    }
}
