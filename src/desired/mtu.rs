//! What a tunnel's outer path carries: the MTU that it gets, or that its own is held against.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use super::Build;
use crate::state::{InterfaceName, MAIN_TABLE, RouteKey, RouteType, State};
use crate::topology::{Effective, Mtu};

/// Bytes that an ipip tunnel puts before a packet: one IPv4 header without options (RFC 2003 section 3).
const IPIP_OVERHEAD: u32 = 20;
/// The MTU that the kernel takes for a tunnel whose underlay it doesn't know (`ETH_DATA_LEN`).
const DEFAULT_UNDERLAY_MTU: u32 = 1500;
/// The range of a tunnel's MTU (`ETH_MIN_MTU` to `IP_MAX_MTU` less the outer header, `net/ipv4/ip_tunnel.c`).
const TUNNEL_MTU: std::ops::RangeInclusive<u32> = 68..=65515;

impl Build<'_> {
    /// The tunnels whose fixed MTU is more than what is known of their outer path.
    pub(super) fn too_large(&self, state: &State) -> BTreeMap<InterfaceName, u32> {
        let tunnels = self.topology.tunnels.iter().filter_map(|(name, tunnel)| {
            let options = self.topology.tunnel(tunnel);
            let Some(Mtu::Bytes(bytes)) = options.get(|t| &t.mtu) else {
                return None;
            };
            let underlay = self.underlay_mtu(*name, &options, state)?;
            let fits = underlay.saturating_sub(IPIP_OVERHEAD);
            (bytes > fits).then_some((*name, fits))
        });
        tunnels.collect()
    }

    /// What the outer path carries, less the outer header.
    pub(super) fn automatic_mtu(
        &self,
        name: InterfaceName,
        options: &Effective,
        state: &State,
    ) -> u32 {
        let underlay = self.underlay_mtu(name, options, state);
        let underlay = underlay.unwrap_or(DEFAULT_UNDERLAY_MTU);
        underlay
            .saturating_sub(IPIP_OVERHEAD)
            .clamp(*TUNNEL_MTU.start(), *TUNNEL_MTU.end())
    }

    fn underlay_mtu(&self, name: InterfaceName, options: &Effective, state: &State) -> Option<u32> {
        let remote = options.get(|t| &t.remote).and_then(|end| end.address());
        let local = self.local(options);
        match options.get(|t| &t.device) {
            Some(device) => state
                .tunnels
                .get(&device)
                .map(|tunnel| tunnel.mtu)
                .or_else(|| self.device_mtu(device)),
            None => remote
                .and_then(|remote| self.path_mtu(name, remote, state))
                .or_else(|| local.and_then(|local| self.device_mtu(self.device_with(local)?))),
        }
    }

    /// The MTU on the way to `remote`: by a route of ours that is about to be, if it's more specific than the kernel's.
    fn path_mtu(&self, tunnel: InterfaceName, remote: Ipv4Addr, state: &State) -> Option<u32> {
        let remote = IpAddr::V4(remote);
        let ours = self
            .lengths
            .holding(remote)
            .find_map(|to| {
                let key = RouteKey {
                    table: MAIN_TABLE,
                    to,
                    tos: 0,
                    metric: 0,
                };
                let mut routes = state.routes.range(key.any_metric());
                routes.find(|(_, route)| route.kind == RouteType::Unicast)
            })
            .and_then(|(key, route)| {
                Some((key.to.prefix_len(), route.devices().next()?, route.mtu))
            })
            .filter(|(_, device, _)| *device != tunnel);
        // A path through the tunnel itself would make its MTU shrink by 20 with each pass.
        let observed = self
            .observed
            .paths
            .get(&remote)
            .filter(|path| path.device != tunnel);
        match (ours, observed) {
            (Some((prefix_len, device, mtu)), path)
                if path.is_none_or(|path| prefix_len > path.prefix_len) =>
            {
                mtu.or_else(|| self.device_mtu(device))
            }
            (_, path) => path.map(|path| path.mtu),
        }
    }

    fn device_mtu(&self, device: InterfaceName) -> Option<u32> {
        self.observed.devices.get(&device).map(|device| device.mtu)
    }

    fn device_with(&self, local: Ipv4Addr) -> Option<InterfaceName> {
        let places = self.underlay.get(&IpAddr::V4(local))?;
        places.last().map(|(device, _)| *device)
    }
}
