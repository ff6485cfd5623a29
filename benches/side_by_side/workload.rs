//! What is to be made: so many tunnels with an address and a route each, or so many routes; and what of it changes.

use std::fmt;
use std::net::Ipv4Addr;

/// The underlay address that every tunnel leaves by.
pub const LOCAL: Ipv4Addr = Ipv4Addr::new(192, 168, 10, 2);
/// The gateway of a route, and the one of a route that has changed.
pub const GATEWAYS: [Ipv4Addr; 2] = [
    Ipv4Addr::new(192, 168, 10, 1),
    Ipv4Addr::new(192, 168, 10, 3),
];
/// The MTU of a tunnel, and the one of a tunnel that has changed. Every peer can change this one.
pub const MTUS: [u32; 2] = [1480, 1400];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Case {
    /// Tunnels, with an address and a route each.
    Tunnels(u32),
    /// Routes by way of a gateway.
    Routes(u32),
}

impl Case {
    pub const fn size(self) -> u32 {
        match self {
            Self::Tunnels(size) | Self::Routes(size) => size,
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Tunnels(size) => write!(f, "{} tunnels", grouped(*size)),
            Self::Routes(size) => write!(f, "{} routes", grouped(*size)),
        }
    }
}

/// `10,000`.
fn grouped(number: u32) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Create,
    NoOp,
    ChangeOne,
    ChangeTenth,
    Delete,
}

impl Step {
    pub const ALL: [Self; 5] = [
        Self::Create,
        Self::NoOp,
        Self::ChangeOne,
        Self::ChangeTenth,
        Self::Delete,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::NoOp => "no-op",
            Self::ChangeOne => "change 1",
            Self::ChangeTenth => "change 10 %",
            Self::Delete => "delete",
        }
    }

    /// Whether the object with this number is as changed, once the step is done.
    pub const fn changed(self, number: u32) -> bool {
        match self {
            Self::Create | Self::NoOp | Self::Delete => false,
            Self::ChangeOne => number == 1,
            Self::ChangeTenth => number == 1 || number.is_multiple_of(10),
        }
    }

    /// Whether this very step changes it.
    pub const fn changes(self, number: u32) -> bool {
        self.changed(number) && !(matches!(self, Self::ChangeTenth) && number == 1)
    }
}

#[derive(Debug, Clone, Copy)]
pub struct Tunnel {
    pub number: u32,
    pub remote: Ipv4Addr,
    pub mtu: u32,
    /// With 30 bits of prefix.
    pub address: Ipv4Addr,
    /// With 24 bits of prefix.
    pub route: Ipv4Addr,
}

/// The tunnels of a case as they are once the step is done, `delete` aside.
pub fn tunnels(count: u32, step: Step) -> impl Iterator<Item = Tunnel> {
    (0..count).map(move |number| Tunnel {
        number,
        remote: after(Ipv4Addr::new(172, 16, 0, 1), number),
        mtu: MTUS[usize::from(step.changed(number))],
        address: after(Ipv4Addr::new(10, 0, 0, 1), number * 4),
        route: after(Ipv4Addr::new(10, 128, 0, 0), number * 256),
    })
}

#[derive(Debug, Clone, Copy)]
pub struct Route {
    pub number: u32,
    /// With 32 bits of prefix.
    pub to: Ipv4Addr,
    pub via: Ipv4Addr,
}

/// The routes of a case as they are once the step is done, `delete` aside.
pub fn routes(count: u32, step: Step) -> impl Iterator<Item = Route> {
    (0..count).map(move |number| Route {
        number,
        to: after(Ipv4Addr::new(11, 0, 0, 0), number),
        via: GATEWAYS[usize::from(step.changed(number))],
    })
}

/// Where a foreign route leads, such as a routing daemon's.
pub fn foreign(number: u32) -> Ipv4Addr {
    after(Ipv4Addr::new(12, 0, 0, 0), number)
}

fn after(first: Ipv4Addr, number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(first.to_bits() + number)
}
