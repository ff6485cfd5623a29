//! Two meshes that have members in common.

use super::{Check, top};
use crate::source::Path;
use crate::topology::Style;
use crate::topology::mesh::Graph;

/// Two meshes, and where the file has them.
struct Pair<'p, 'a> {
    one: &'p Graph<'a>,
    other: &'p Graph<'a>,
    first: Path,
    second: Path,
}

impl<'a> Check<'a> {
    pub(super) fn meshes(&mut self, one: &Graph<'a>, other: &Graph<'a>) {
        let (few, many) = match one.members.len() <= other.members.len() {
            true => (one, other),
            false => (other, one),
        };
        let mut common = few.members.iter().copied().filter(|&node| many.has(node));
        let Some(shared) = common.next() else {
            return;
        };
        let pair = Pair {
            one,
            other,
            first: top("meshes", one.name),
            second: top("meshes", other.name),
        };
        self.device_names(&pair);
        if !self.same_endpoints(&pair, shared)
            && let Some(next) = common.next()
        {
            self.both_route(&pair, shared, next);
        }
        self.last_resorts(&pair, shared);
    }

    fn device_names(
        &mut self,
        Pair {
            one,
            other,
            first,
            second,
        }: &Pair,
    ) {
        let (base, other_base) = (one.base(), other.base());
        let taken = match (one.mesh.style, other.mesh.style) {
            (Style::Multipoint, Style::Multipoint) => base == other_base,
            // With the same beginning, the same name means the same peer.
            (Style::PointToPoint, Style::PointToPoint) => {
                base != other_base
                    && (base.starts_with(&other_base) || other_base.starts_with(&base))
            }
            (Style::PointToPoint, Style::Multipoint) => begins(&other_base, &base, one),
            (Style::Multipoint, Style::PointToPoint) => begins(&base, &other_base, other),
        };
        if taken {
            let message = format!(
                "devices of the meshes {} and {} could have the same name: they are called {base:?} and {other_base:?}",
                one.name, other.name
            );
            self.clash(
                &second.key("interface"),
                first,
                &message,
                "give the meshes `interface`s of which none begins with the other",
            );
        }
    }

    /// Whether tunnels of both would have the same ends.
    fn same_endpoints(&mut self, pair: &Pair, shared: usize) -> bool {
        let Pair {
            one,
            other,
            first,
            second,
        } = pair;
        if self.device_of(one, shared) != self.device_of(other, shared) {
            return false;
        }
        let (message, help) = match (one.mesh.style, other.mesh.style) {
            (Style::Multipoint, Style::Multipoint) => (
                format!(
                    "{} is in two multipoint meshes: the kernel could not tell their packets apart",
                    self.name(shared)
                ),
                "join the meshes, or make one point-to-point",
            ),
            (Style::PointToPoint, Style::PointToPoint) => match common_edge(one, other) {
                Some((node, peer)) => (
                    format!(
                        "{} and {} are joined by two point-to-point meshes: the kernel could not tell the tunnels apart",
                        self.name(node),
                        self.name(peer)
                    ),
                    "leave the pair to one of them",
                ),
                None => return false,
            },
            (Style::Multipoint, Style::PointToPoint) | (Style::PointToPoint, Style::Multipoint) => {
                return false;
            }
        };
        self.clash(second, first, &message, help);
        true
    }

    fn both_route(&mut self, pair: &Pair, shared: usize, next: usize) {
        let Pair {
            one,
            other,
            first,
            second,
        } = pair;
        if one.mesh.routes && other.mesh.routes {
            let message = format!(
                "{} and {} are in two meshes, and both route to their subnets",
                self.name(shared),
                self.name(next)
            );
            self.clash(
                second,
                first,
                &message,
                "set `routes: false` in one of them",
            );
        }
    }

    /// A node has one last resort, whichever mesh makes it.
    fn last_resorts(&mut self, pair: &Pair, shared: usize) {
        let Pair {
            one,
            other,
            first,
            second,
        } = pair;
        let resort = |graph: &Graph| {
            let drops = graph.mesh.local.is_none() && graph.mesh.blackhole;
            (graph.mesh.local, drops)
        };
        if one.mesh.routes && other.mesh.routes && resort(one) != resort(other) {
            let message = format!(
                "the meshes {} and {} differ in what becomes of packets to unused addresses of {}",
                one.name,
                other.name,
                self.name(shared)
            );
            let help = "give both the same `blackhole` and `local`";
            self.clash(second, first, &message, help);
        }
    }
}

/// A pair of nodes that both have joined.
fn common_edge(one: &Graph, other: &Graph) -> Option<(usize, usize)> {
    one.members.iter().copied().find_map(|node| {
        let mut peers = other.neighbours(node).into_iter();
        Some((node, peers.find(|&peer| one.joins(node, peer))?))
    })
}

/// Whether a device could be one of a point-to-point mesh's.
fn begins(device: &str, base: &str, graph: &Graph) -> bool {
    let label = device.strip_prefix(base);
    label.is_some_and(|label| graph.labels.node(label).is_some())
}
