//! One host: its tunnels, where they lead, and what goes through them.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use super::place::net;
use super::text::{clean, counted, first, number};
use super::{Card, CardKind, GroupKind, Link, Picture, Web};
use crate::state::{AdminState, InterfaceName, RouteType};
use crate::topology::{Destination, Endpoint, Route, Topology, Tunnel};

/// Lines of one kind on a card.
const MOST_LINES: usize = 6;
/// More tunnels are joined to the host as a web, without their remotes beside them.
const MOST_SPREAD: usize = 16;
/// Boxes for tunnels that are too many to draw each.
const MOST_NETWORKS: usize = 100;

fn frame(topology: &Topology) -> Picture {
    let tunnels = topology.tunnels.values();
    let addresses = tunnels.clone().map(|t| t.addresses.len()).sum::<usize>()
        + topology.addresses.values().map(Vec::len).sum::<usize>();
    let routes = tunnels.map(|t| t.routes.len()).sum::<usize>() + topology.routes.len();
    let counts = [
        counted(topology.tunnels.len(), "tunnel"),
        counted(addresses, "address"),
        counted(routes, "route"),
    ];
    let mut picture = Picture {
        title: clean(&topology.name),
        summary: format!("one host · {}", counts.join(" · ")),
        cards: Vec::new(),
        groups: Vec::new(),
        webs: Vec::new(),
        notes: Vec::new(),
    };
    let host = Card {
        kind: CardKind::Host,
        title: clean(&topology.name),
        lines: addresses_elsewhere(topology),
        subnets: routes_elsewhere(topology),
        details: vec!["this host".into()],
    };
    picture.add_group(String::new(), GroupKind::Loose, vec![host]);
    picture
}

fn addresses_elsewhere(topology: &Topology) -> Vec<String> {
    let lists = topology.addresses.iter();
    let texts: Vec<String> = lists
        .flat_map(|(device, list)| {
            let device = clean(device);
            list.iter()
                .map(move |address| format!("{} on {device}", address.address))
        })
        .collect();
    first(texts.iter(), MOST_LINES)
}

fn routes_elsewhere(topology: &Topology) -> Vec<String> {
    let texts: Vec<String> = topology
        .routes
        .iter()
        .map(|route| sentence(route))
        .collect();
    first(texts.iter(), MOST_LINES)
}

/// A route in few words.
fn sentence(route: &Route) -> String {
    let mut text = match route.to {
        Destination::Default => "default".to_owned(),
        Destination::Prefix(net) => net.to_string(),
    };
    match route.kind {
        RouteType::Unicast => {}
        kind => text = format!("{kind} {text}"),
    }
    if let Some(via) = route.via {
        text += &format!(" via {}", via.0);
    }
    let hops = route.nexthops.iter();
    let devices = hops.filter_map(|hop| hop.device).chain(route.device);
    let devices: Vec<String> = devices.map(clean).collect();
    if !devices.is_empty() {
        text += &format!(" dev {}", first(devices.iter(), 3).join(", "));
    }
    text
}

/// The picture of one host, tunnel by tunnel.
pub(super) fn detailed(topology: &Topology) -> Picture {
    let mut picture = frame(topology);
    let spread = topology.tunnels.len() <= MOST_SPREAD;
    let tunnels = topology.tunnels.iter();
    let cards: Vec<Card> = tunnels
        .map(|(name, tunnel)| card(topology, *name, tunnel, spread))
        .collect();
    if cards.is_empty() {
        return picture;
    }
    let count = cards.len();
    let (title, kind) = match spread {
        true => (String::new(), GroupKind::Loose),
        false => ("tunnels".into(), GroupKind::Subnet),
    };
    picture.add_group(title, kind, cards);
    let mut web = Web {
        title: "tunnels".into(),
        facts: vec![number(count)],
        members: (0..=count).collect(),
        hubs: if spread { Vec::new() } else { vec![0] },
        links: (1..=count).map(|card| plain_link(0, card)).collect(),
    };
    if spread {
        remotes(topology, &mut picture, &mut web);
    }
    picture.webs.push(web);
    picture
}

fn plain_link(one: usize, other: usize) -> Link {
    Link {
        ends: (one, other),
        label: String::new(),
        details: Vec::new(),
    }
}

fn remote(topology: &Topology, tunnel: &Tunnel) -> Option<Ipv4Addr> {
    let remote = topology.tunnel(tunnel).get(|tunnel| &tunnel.remote);
    remote.and_then(|remote| remote.address())
}

/// The far ends, behind their tunnels.
fn remotes(topology: &Topology, picture: &mut Picture, web: &mut Web) {
    let mut cards: Vec<Card> = Vec::new();
    let mut known: BTreeMap<Option<Ipv4Addr>, usize> = BTreeMap::new();
    for (before, tunnel) in topology.tunnels.values().enumerate() {
        let remote = remote(topology, tunnel);
        let card = *known.entry(remote).or_insert_with(|| {
            cards.push(Card {
                kind: CardKind::Outside,
                title: remote.map_or("any remote".into(), |remote| remote.to_string()),
                lines: Vec::new(),
                subnets: Vec::new(),
                details: match remote {
                    Some(_) => vec!["remote end".into()],
                    None => vec!["routes and their gateways say where packets go".into()],
                },
            });
            picture.cards.len() + cards.len() - 1
        });
        web.links.push(plain_link(before + 1, card));
        web.members.push(card);
    }
    web.members.sort_unstable();
    web.members.dedup();
    picture.add_group(String::new(), GroupKind::Outside, cards);
}

fn card(topology: &Topology, name: InterfaceName, tunnel: &Tunnel, spread: bool) -> Card {
    let options = topology.tunnel(tunnel);
    let local = match options.get(|tunnel| &tunnel.local) {
        Some(Endpoint::Address(address)) => Some(address.to_string()),
        Some(Endpoint::Device(device)) => Some(format!("address of {}", clean(device))),
        Some(Endpoint::Node(name)) => Some(clean(name)),
        Some(Endpoint::Any) | None => None,
    };
    let far = remote(topology, tunnel).map_or("any".into(), |address| address.to_string());
    let mut lines: Vec<String> = local.iter().map(|local| format!("local {local}")).collect();
    if !spread {
        lines.push(format!("remote {far}"));
    }
    if options.get(|tunnel| &tunnel.state) == Some(AdminState::Down) {
        lines.push("down".into());
    }
    let most = if spread { MOST_LINES } else { 2 };
    let addresses: Vec<String> = tunnel
        .addresses
        .iter()
        .map(|address| {
            let peer = address.peer.map(|peer| format!(" peer {peer}"));
            format!("{}{}", address.address, peer.unwrap_or_default())
        })
        .collect();
    lines.extend(first(addresses.iter(), most));
    let routes: Vec<String> = tunnel.routes.iter().map(|route| sentence(route)).collect();
    Card {
        kind: CardKind::Tunnel,
        title: clean(name),
        lines,
        subnets: first(routes.iter(), most),
        details: vec![
            format!("local {}, remote {far}", local.as_deref().unwrap_or("any")),
            counted(addresses.len(), "address"),
            counted(routes.len(), "route"),
        ],
    }
}

/// The picture of one host with its tunnels counted by where they lead.
pub(super) fn grouped(topology: &Topology) -> Picture {
    let mut picture = frame(topology);
    let counts = |length: u8| {
        let mut counts: BTreeMap<_, usize> = BTreeMap::new();
        for tunnel in topology.tunnels.values() {
            let place = remote(topology, tunnel).map(|address| net(address, length));
            *counts.entry(place).or_default() += 1;
        }
        counts
    };
    let lengths = [24, 20, 16, 12, 8, 4, 0];
    let fitting = lengths.into_iter().map(counts);
    let places = fitting.reduce(|best, next| {
        if best.len() > MOST_NETWORKS {
            next
        } else {
            best
        }
    });
    let places = places.unwrap_or_default();
    let cards: Vec<Card> = places
        .into_iter()
        .map(|(place, count)| Card {
            kind: CardKind::Many,
            title: place.map_or("any remote".into(), |net| net.to_string()),
            lines: vec![counted(count, "tunnel")],
            subnets: Vec::new(),
            details: Vec::new(),
        })
        .collect();
    let count = cards.len();
    picture.add_group("remotes".into(), GroupKind::Outside, cards);
    picture.webs.push(Web {
        title: "tunnels".into(),
        facts: vec![number(topology.tunnels.len())],
        members: (0..=count).collect(),
        hubs: vec![0],
        links: (1..=count).map(|card| plain_link(0, card)).collect(),
    });
    picture.notes.push(
        "too many tunnels to show each: they are counted by the network of their remote".into(),
    );
    picture
}
