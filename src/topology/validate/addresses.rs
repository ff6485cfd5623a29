//! The rules of addresses.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use super::{Check, given_twice, never_an_address, tunnel_path};
use crate::source::Path;
use crate::state::{AddressKey, InterfaceName};
use crate::topology::{Address, Short};

/// An address with the place where it's written.
#[derive(Clone, Copy)]
pub(super) struct Written<'a> {
    pub(super) address: &'a Address,
    pub(super) device: InterfaceName,
    on_tunnel: bool,
    index: usize,
}

impl Written<'_> {
    fn key(&self) -> AddressKey {
        self.address.key(self.device)
    }

    fn path(&self) -> Path {
        let list = if self.on_tunnel {
            tunnel_path(self.device).key("addresses")
        } else {
            Path::default().key("addresses").key(self.device)
        };
        list.index(self.index)
    }
}

impl<'a> Check<'a> {
    pub(super) fn written_addresses(&self) -> impl Iterator<Item = Written<'a>> + use<'a> {
        let written = |device: &InterfaceName, list: &'a [Short<Address>], on_tunnel| {
            let device = *device;
            list.iter()
                .enumerate()
                .map(move |(index, address)| Written {
                    address,
                    device,
                    on_tunnel,
                    index,
                })
        };
        let tunnels = self.topology.tunnels.iter();
        let devices = self.topology.addresses.iter();
        tunnels
            .flat_map(move |(name, tunnel)| written(name, &tunnel.addresses, true))
            .chain(devices.flat_map(move |(name, list)| written(name, list, false)))
    }

    pub(super) fn addresses(&mut self) {
        for written in self.written_addresses() {
            self.address(&written);
        }
        let keyed = self
            .written_addresses()
            .map(|written| (written.key(), written));
        for (first, again) in given_twice(keyed.collect()) {
            let message = format!("address {} is given twice", again.key());
            self.duplicate(&again.path(), &first.path(), message);
        }
        self.lists_of_tunnels();
    }

    fn lists_of_tunnels(&mut self) {
        let topology = self.topology;
        let devices = topology.addresses.keys();
        for device in devices.filter(|device| topology.tunnels.contains_key(device)) {
            let path = Path::default().key("addresses").key(device);
            let message = format!("{device} is a tunnel of this topology");
            self.error(&path, message).help =
                Some(format!("move the list to `tunnels.{device}.addresses`"));
        }
    }

    fn address(&mut self, written: &Written) {
        let Address { address, peer, .. } = written.address;
        let ends = [
            (None, Some(address.net.addr())),
            (Some("peer"), written.address.peer()),
        ];
        for (key, ip) in ends {
            if let Some((ip, kind)) = ip.and_then(|ip| Some((ip, never_an_address(ip)?))) {
                let path = match key {
                    None => written.path(),
                    Some(key) => written.path().key(key),
                };
                let message = format!("{ip} is {kind} address: no interface can have it");
                self.error(&path, message);
            }
        }
        match peer {
            None => self.own_network(written, address.net),
            Some(_) => self.peer(written),
        }
        if address.net.addr().is_ipv6() {
            self.ipv4_options(written);
        }
    }

    /// An address that means its network rather than a host in it.
    fn own_network(&mut self, written: &Written, net: IpNet) {
        let host = |ip: IpAddr| format!("give a host's, such as {ip}/{}", net.prefix_len());
        match net {
            IpNet::V4(v4) if v4.prefix_len() < 31 && v4.addr() == v4.network() => {
                let next = Ipv4Addr::from(u32::from(v4.addr()).wrapping_add(1));
                self.error(
                    &written.path(),
                    format!("{net} is the network's own address"),
                )
                .help = Some(host(next.into()));
            }
            IpNet::V4(v4) if v4.prefix_len() < 31 && v4.addr() == v4.broadcast() => {
                let previous = Ipv4Addr::from(u32::from(v4.addr()).wrapping_sub(1));
                self.error(
                    &written.path(),
                    format!("{net} is the network's broadcast address"),
                )
                .help = Some(host(previous.into()));
            }
            // The kernel takes it: it is the anycast address of the subnet's routers.
            IpNet::V6(v6) if v6.prefix_len() < 127 && v6.addr() == v6.network() => {
                self.warning(
                    &written.path(),
                    format!("{net} is the anycast address of the subnet's routers (RFC 4291 section 2.6.1)"),
                );
            }
            IpNet::V4(_) | IpNet::V6(_) => {}
        }
    }

    fn peer(&mut self, written: &Written) {
        let Address {
            address,
            peer: Some(peer),
            ..
        } = written.address
        else {
            return;
        };
        let path = written.path().key("peer");
        let (own, other) = (address.net, peer.net);
        if own.addr().is_ipv4() != other.addr().is_ipv4() {
            self.error(
                &path,
                format!(
                    "{} and its peer {} are of two families",
                    own.addr(),
                    other.addr()
                ),
            );
        } else if address.explicit && peer.explicit && own.prefix_len() != other.prefix_len() {
            self.error(
                &path,
                format!("the prefix length is given twice: {own} and peer {other}"),
            )
            .help = Some("the peer's is the one that counts: leave the other out".into());
        }
    }

    fn ipv4_options(&mut self, written: &Written) {
        let Address { scope, label, .. } = written.address;
        for (key, given) in [("scope", scope.is_some()), ("label", label.is_some())] {
            if given {
                let message = format!("an IPv6 address has no `{key}` of its own choice");
                self.error(&written.path().key(key), message);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::check;

    #[test]
    fn addresses_are_hosts() {
        check(&[
            (
                "addresses: {lo: [»10.0.0.0/24]}",
                &["10.0.0.0/24 is the network's own address"],
            ),
            (
                "addresses: {lo: [»10.0.0.255/24]}",
                &["the network's broadcast address"],
            ),
            (
                "addresses: {lo: [»10.0.0.4/30, »10.0.0.7/30]}",
                &["own address", "broadcast"],
            ),
            (
                "addresses: {lo: [10.0.0.0/31, 10.0.0.1/31, 10.0.0.0/32, 10.0.0.255/32, 10.0.0.255/16]}",
                &[],
            ),
            (
                "addresses: {lo: [10.0.0.0, »{address: 10.0.0.0/24}]}",
                &["own address"],
            ),
            (
                "addresses: {lo: [»224.0.0.1/32]}",
                &["is a multicast address: no interface can have it"],
            ),
            (
                "addresses: {lo: [»0.0.0.0]}",
                &["is the unspecified address"],
            ),
            (
                "addresses: {lo: [»255.255.255.255]}",
                &["is the broadcast address"],
            ),
            (
                "addresses: {lo: [»\"ff02::1\"]}",
                &["is a multicast address"],
            ),
            (
                "addresses: {lo: [»\"2001:db8::/64\"]}",
                &["warning: the anycast address of the subnet's routers"],
            ),
            (
                "addresses: {lo: [\"2001:db8::/127\", \"2001:db8:1::/128\"]}",
                &[],
            ),
            (
                "addresses: {lo: [127.0.0.2/8, 169.254.0.1/16, \"fe80::1/64\"]}",
                &[],
            ),
        ]);
    }

    #[test]
    fn addresses_are_given_once() {
        check(&[
            (
                "addresses: {lo: [10.0.0.1/32, »10.0.0.1]}",
                &["addresses.lo[1]: address 10.0.0.1/32 on lo is given twice"],
            ),
            (
                "addresses: {lo: [\"2001:db8::1/64\", »\"2001:db8::1/128\"]}",
                &["is given twice"],
            ),
            // To the kernel these differ.
            ("addresses: {lo: [10.0.0.1/32, 10.0.0.1/24]}", &[]),
            (
                "addresses: {lo: [{address: 10.0.0.1, peer: 10.0.0.2}, {address: 10.0.0.1, peer: 10.0.0.3}]}",
                &[],
            ),
            // Unnumbered tunnels borrow one address.
            (
                "addresses: {lo: [10.0.0.1/32]}\ntunnels:\n  a: {remote: 192.0.2.1, addresses: [10.0.0.1/32]}\n  b: {remote: 192.0.2.2, addresses: [10.0.0.1/32]}",
                &[],
            ),
            (
                "addresses: {»tun1: [10.0.0.1/32]}\ntunnels: {tun1: {local: 192.0.2.1}}",
                &["tun1 is a tunnel of this topology"],
            ),
        ]);
    }

    #[test]
    fn peers_fit_their_address() {
        check(&[
            (
                "addresses: {e: [{address: 10.0.0.1, peer: »\"2001:db8::1\"}]}",
                &["are of two families"],
            ),
            (
                "addresses: {e: [{address: 10.0.0.1/24, peer: »10.0.0.2/32}]}",
                &["the prefix length is given twice"],
            ),
            (
                "addresses: {e: [{address: 10.0.0.1, peer: »224.0.0.1}]}",
                &["is a multicast address"],
            ),
            (
                "addresses: {e: [{address: 10.0.0.1/32, peer: 10.0.0.2/32}, {address: 10.0.0.3, peer: 10.1.0.0/24}]}",
                &[],
            ),
            (
                "addresses: {e: [{address: \"2001:db8::1\", scope: »link}]}",
                &["an IPv6 address has no `scope`"],
            ),
            (
                "addresses: {e: [{address: \"2001:db8::1\", label: »e:1}]}",
                &["an IPv6 address has no `label`"],
            ),
            (
                "addresses: {e: [{address: 10.0.0.1, scope: link, label: e:1, noprefixroute: true, metric: 5}]}",
                &[],
            ),
        ]);
    }
}
