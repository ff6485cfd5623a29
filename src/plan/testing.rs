//! States and hosts for the tests of plans, as a topology says them.

use super::{Plan, Terms};
use crate::desired::desired;
use crate::state::{Desired, Observed};
use crate::topology::Topology;

/// What a topology for one host wants there.
pub(super) fn wanted(topology: &str, observed: &Observed) -> Desired {
    let parsed =
        Topology::parse("test.yaml", topology).unwrap_or_else(|problems| panic!("{problems}"));
    let host = parsed.topology.fleet().host(None).expect("one host");
    desired(&host, observed)
}

/// A host with nothing but these devices.
pub(super) fn bare_with(devices: &[&str]) -> Observed {
    let mut observed = Observed::bare();
    for device in devices {
        observed.add_device(device.parse().expect("a name"), 1500);
    }
    observed
}

pub(super) fn terms(owner: &str) -> Terms {
    Terms::new(owner.parse().expect("an owner"), 117)
}

/// A plan's steps in words.
pub(super) fn steps(plan: &Plan) -> Vec<String> {
    let steps = plan.steps.iter();
    let words = steps.map(|step| format!("{:?} {}", step.part, plan.changes[step.change]));
    words.collect()
}
