//! What hangs on a device and goes with it.

use std::collections::BTreeMap;

use crate::state::{Address, AddressKey, InterfaceName, Observed};

/// `IFAPROT_KERNEL_LL`: an IPv6 link-local address that the kernel made (`include/uapi/linux/if_addr.h`).
const PROTOCOL_KERNEL_LINK_LOCAL: u8 = 3;
/// `RTPROT_KERNEL`: a route that the kernel made, of an address's network.
const PROTOCOL_KERNEL: u8 = 2;

/// The addresses and routes of each device, counted.
pub(super) struct Dependents(BTreeMap<InterfaceName, Counts>);

#[derive(Default)]
struct Counts {
    addresses: usize,
    routes: usize,
    foreign_routes: usize,
}

impl Dependents {
    pub(super) fn of(observed: &Observed, protocol: u8) -> Self {
        let mut counts: BTreeMap<InterfaceName, Counts> = BTreeMap::new();
        for (key, address) in &observed.state.addresses {
            if !is_kernels_link_local(*key, address, observed.marks_addresses) {
                counts.entry(key.device).or_default().addresses += 1;
            }
        }
        for route in observed.state.routes.values() {
            for device in route.devices() {
                let counts = counts.entry(device).or_default();
                match route.protocol {
                    PROTOCOL_KERNEL => {}
                    ours if ours == protocol => counts.routes += 1,
                    _ => counts.foreign_routes += 1,
                }
            }
        }
        Self(counts)
    }

    /// What goes with a device, in words; `None`: nothing.
    pub(super) fn words(&self, device: InterfaceName) -> Option<String> {
        let Counts {
            addresses,
            routes,
            foreign_routes,
        } = self.0.get(&device)?;
        let counted = |count: &usize, one: &str, many: &str| match count {
            0 => None,
            1 => Some(format!("1 {one}")),
            count => Some(format!("{count} {many}")),
        };
        let parts = [
            counted(addresses, "address", "addresses"),
            counted(routes, "route", "routes"),
            counted(
                foreign_routes,
                "route of another protocol",
                "routes of other protocols",
            ),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        (!parts.is_empty()).then(|| parts.join(", "))
    }
}

/// An IPv6 address that the kernel gives to every device that is up. Kernels without `IFA_PROTO` don't tell it from a
/// person's, so there all link-local addresses are left alone.
pub fn is_kernels_link_local(key: AddressKey, address: &Address, marks: bool) -> bool {
    match key.local {
        std::net::IpAddr::V6(ip) => {
            ip.is_unicast_link_local() && (!marks || address.protocol == PROTOCOL_KERNEL_LINK_LOCAL)
        }
        std::net::IpAddr::V4(_) => false,
    }
}
