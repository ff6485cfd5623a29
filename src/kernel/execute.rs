//! Carrying out a plan: its steps as messages, in its order, with as few sends as can be.
//!
//! Nothing is decided here. The order is the plan's; only where a step needs the index of a device that an earlier
//! step makes, what is queued goes out first and the indices are read once.

use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::socket::{BATCH_MESSAGES, Channel, Request};
use super::{Error, Indices, OnRefusal, Refusal, address, link, route, snapshot};
use crate::plan::{Action, Change, Delta, Outcome, Part, Plan, Status, Step};
use crate::state::{InterfaceName, Observed, Tunnel};

const ENOENT: i32 = 2;
const ESRCH: i32 = 3;
const ENODEV: i32 = 19;
const EINVAL: i32 = 22;
const EADDRNOTAVAIL: i32 = 99;

/// The longest duplicate address detection: a random delay of up to a second, then a second for each of its probes, one
/// unless someone set more (`dad_transmits`).
const DETECTION_LIMIT: Duration = Duration::from_secs(5);
const DETECTION_LOOK: Duration = Duration::from_millis(20);

/// The group that tunnels are moved into to be deleted at once, or the next one that is free: `tunl` in ASCII.
const SPARE_GROUP: u32 = 0x7475_6e6c;

pub(super) fn execute(
    channel: &mut Channel,
    plan: &Plan,
    observed: &Observed,
    on_refusal: OnRefusal,
) -> Result<Vec<Outcome>, Error> {
    let mut run = Run {
        channel,
        plan,
        observed,
        indices: snapshot::indices_of(observed),
        renewed: HashSet::new(),
        queue: Vec::new(),
        without_source: Vec::new(),
        tunnels: tunnels(plan, observed),
        outcomes: vec![Outcome::PENDING; plan.changes.len()],
        refused: false,
    };
    let mut steps = plan.steps.as_slice();
    while let Some((step, rest)) = steps.split_first() {
        if on_refusal == OnRefusal::Stop && run.refused {
            break;
        }
        let removals = steps
            .iter()
            .take_while(|step| run.removed_tunnel(step).is_some())
            .count();
        if removals > 1 {
            run.remove_tunnels(&steps[..removals])?;
            steps = &steps[removals..];
        } else {
            run.step(*step)?;
            steps = rest;
        }
    }
    run.flush()?;
    if !(on_refusal == OnRefusal::Stop && run.refused) {
        run.try_again_with_source()?;
    }
    Ok(run.outcomes)
}

fn tunnels(plan: &Plan, observed: &Observed) -> HashSet<InterfaceName> {
    let planned = plan.changes.iter().filter_map(|change| match change {
        Change::Tunnel(name, _) => Some(*name),
        Change::Address(..) | Change::Route(..) => None,
    });
    planned
        .chain(observed.state.tunnels.keys().copied())
        .collect()
}

/// A request, the change that it belongs to, and whether "not there" is as good as done.
struct Queued {
    change: usize,
    request: Request,
    removes: bool,
}

struct Run<'a> {
    channel: &'a mut Channel,
    plan: &'a Plan,
    observed: &'a Observed,
    indices: Indices,
    /// Tunnels whose index is of no use until the queue is out and the indices are read again.
    renewed: HashSet<InterfaceName>,
    queue: Vec<Queued>,
    /// Routes that the kernel refused, with the IPv6 source that may be the reason.
    without_source: Vec<(usize, IpAddr)>,
    /// Devices that are tunnels, now or when the plan is carried out.
    tunnels: HashSet<InterfaceName>,
    outcomes: Vec<Outcome>,
    /// Something was refused for good.
    refused: bool,
}

impl Run<'_> {
    fn removed_tunnel(&self, step: &Step) -> Option<InterfaceName> {
        match (&self.plan.changes[step.change], step.part) {
            (Change::Tunnel(name, _), Part::Remove) => Some(*name),
            _ => None,
        }
    }

    fn step(&mut self, step: Step) -> Result<(), Error> {
        let plan = self.plan;
        let change = &plan.changes[step.change];
        self.renew_indices_for(change)?;
        let encoded = match change {
            Change::Tunnel(name, delta) => self.tunnel(*name, delta, step.part),
            Change::Address(key, delta) => match (
                self.indices.get(&key.device),
                delta.after().or(delta.before()),
            ) {
                (Some(&index), Some(address)) => Ok(match step.part {
                    Part::Remove => vec![address::delete(
                        key,
                        delta.before().unwrap_or(address),
                        index,
                    )],
                    Part::Put => vec![address::put(
                        key,
                        address,
                        index,
                        change.action() == Action::Create,
                        self.tunnels.contains(&key.device),
                    )],
                }),
                (None, _) => Err(key.device),
                (_, None) => Ok(Vec::new()),
            },
            Change::Route(key, delta) => match (step.part, delta.before(), delta.after()) {
                (Part::Remove, Some(route), _) => {
                    route::delete(key, route, &self.indices).map(|request| vec![request])
                }
                (Part::Put, _, Some(route)) => {
                    let new = change.action() == Action::Create;
                    route::put(key, route, &self.indices, new).map(|request| vec![request])
                }
                _ => Ok(Vec::new()),
            },
        };
        match encoded {
            Ok(requests) => {
                let removes = step.part == Part::Remove;
                self.make_room(requests.len())?;
                self.queue
                    .extend(requests.into_iter().map(|request| Queued {
                        change: step.change,
                        request,
                        removes,
                    }));
            }
            // What is to go is gone with its device.
            Err(_) if step.part == Part::Remove => self.done(step.change),
            Err(device) => self.skip(step.change, device),
        }
        Ok(())
    }

    fn tunnel(
        &mut self,
        name: InterfaceName,
        delta: &Delta<Tunnel>,
        part: Part,
    ) -> Result<Vec<Request>, InterfaceName> {
        match (part, delta) {
            (Part::Remove, _) => {
                self.forget_index(name, delta);
                self.indices
                    .get(&name)
                    .map(|index| vec![link::delete(*index)])
                    .ok_or(name)
            }
            (Part::Put, Delta::Update { from, to }) => {
                let index = self.indices.get(&name).copied().ok_or(name)?;
                link::update(index, from, to, &self.indices).map(|request| vec![request])
            }
            // With its own index again all that is on it can follow in the same send, and who knows it by its index
            // still does.
            (Part::Put, Delta::Replace { to, .. }) if self.indices.contains_key(&name) => {
                let index = self.indices.get(&name).copied();
                link::create(name, index, to, &self.indices).map(Vec::from)
            }
            (
                Part::Put,
                Delta::Create(to) | Delta::Replace { to, .. } | Delta::Restore { to, .. },
            ) => {
                self.renewed.insert(name);
                link::create(name, None, to, &self.indices).map(Vec::from)
            }
            (Part::Put, Delta::Delete { .. }) => Ok(Vec::new()),
        }
    }

    /// A deleted tunnel's index is of no use, unless the tunnel gets it again.
    fn forget_index(&mut self, name: InterfaceName, delta: &Delta<Tunnel>) {
        if delta.action() != Action::Replace {
            self.renewed.insert(name);
        }
    }

    /// Deletes several tunnels at once: each on its own costs a grace period of the kernel, a group of them one for all.
    fn remove_tunnels(&mut self, steps: &[Step]) -> Result<(), Error> {
        self.flush()?;
        let used: BTreeSet<u32> = self
            .observed
            .devices
            .values()
            .map(|device| device.group)
            .collect();
        let Some(group) = (SPARE_GROUP..).find(|group| !used.contains(group)) else {
            return steps.iter().try_for_each(|step| self.step(*step));
        };
        let mut moved = Vec::new();
        for step in steps {
            let Change::Tunnel(name, delta) = &self.plan.changes[step.change] else {
                continue;
            };
            let name = *name;
            self.forget_index(name, delta);
            match self.indices.get(&name) {
                Some(index) => {
                    let request = link::set_group(*index, group);
                    self.make_room(1)?;
                    moved.push(step.change);
                    self.queue.push(Queued {
                        change: step.change,
                        request,
                        removes: true,
                    });
                }
                None => self.done(step.change),
            }
        }
        self.flush()?;
        let answer = self
            .channel
            .transact(vec![link::delete_group(group)])?
            .pop();
        if let Some(Err(refusal)) =
            answer.filter(|answer| !matches!(answer, Err(no) if is_gone(no)))
        {
            for change in moved {
                self.outcomes[change] = failed(&refusal);
                self.refused = true;
            }
        }
        Ok(())
    }

    fn renew_indices_for(&mut self, change: &Change) -> Result<(), Error> {
        let needs = |device: InterfaceName| self.renewed.contains(&device);
        let stale = match change {
            Change::Tunnel(name, delta) => {
                let underlay = delta.after().and_then(|tunnel| tunnel.endpoints().device);
                underlay.is_some_and(needs)
                    || (needs(*name) && matches!(delta, Delta::Update { .. }))
            }
            Change::Address(key, _) => needs(key.device),
            Change::Route(_, delta) => delta
                .after()
                .or(delta.before())
                .is_some_and(|route| route.devices().any(needs)),
        };
        if stale {
            self.flush()?;
            self.indices = snapshot::indices(self.channel)?;
            self.renewed.clear();
        }
        Ok(())
    }

    /// A full send goes out: requests take ten times the memory of their bytes, and those of one step belong into one send.
    fn make_room(&mut self, requests: usize) -> Result<(), Error> {
        match self.queue.len() + requests <= BATCH_MESSAGES {
            true => Ok(()),
            false => self.flush(),
        }
    }

    fn flush(&mut self) -> Result<(), Error> {
        let queue = std::mem::take(&mut self.queue);
        let (tags, requests): (Vec<_>, Vec<_>) = queue
            .into_iter()
            .map(|queued| ((queued.change, queued.removes), queued.request))
            .unzip();
        let results = self.channel.transact(requests)?;
        for ((change, removes), result) in tags.into_iter().zip(results) {
            match result {
                Err(refusal) if !(removes && is_gone(&refusal)) => {
                    let source = self.source(change);
                    let source = source.filter(|_| refusal.errno == EINVAL);
                    self.refused |= source.is_none();
                    self.without_source.extend(source.map(|ip| (change, ip)));
                    // A tunnel that could not be created can't be marked either: the first refusal is the reason.
                    if self.outcomes[change].status != Status::Failed {
                        self.outcomes[change] = failed(&refusal);
                    }
                }
                Ok(()) | Err(_) => self.done(change),
            }
        }
        Ok(())
    }

    /// The IPv6 source that a route prefers.
    fn source(&self, change: usize) -> Option<IpAddr> {
        match &self.plan.changes[change] {
            Change::Route(_, delta) => delta.after()?.src.filter(IpAddr::is_ipv6),
            Change::Tunnel(..) | Change::Address(..) => None,
        }
    }

    /// An IPv6 address is no route's source before duplicate address detection is through with it.
    fn try_again_with_source(&mut self) -> Result<(), Error> {
        let routes = std::mem::take(&mut self.without_source);
        if routes.is_empty() {
            return Ok(());
        }
        let start = Instant::now();
        loop {
            let tentative = snapshot::tentative(self.channel, &self.indices)?;
            let waits = routes.iter().any(|(_, source)| tentative.contains(source));
            if !waits || start.elapsed() > DETECTION_LIMIT {
                break;
            }
            std::thread::sleep(DETECTION_LOOK);
        }
        for (change, _) in routes {
            let Change::Route(key, delta) = &self.plan.changes[change] else {
                continue;
            };
            let new = delta.action() == Action::Create;
            let again = delta
                .after()
                .map(|route| route::put(key, route, &self.indices, new));
            if let Some(Ok(request)) = again {
                self.outcomes[change] = Outcome::PENDING;
                self.queue.push(Queued {
                    change,
                    request,
                    removes: false,
                });
            }
        }
        self.flush()
    }

    fn done(&mut self, change: usize) {
        if self.outcomes[change].status == Status::Pending {
            self.outcomes[change] = Outcome::DONE;
        }
    }

    fn skip(&mut self, change: usize, device: InterfaceName) {
        let error = match self.tunnels.contains(&device) {
            true => format!("tunnel {device} isn't there"),
            false => format!("device {device} doesn't exist"),
        };
        self.refused = true;
        self.outcomes[change] = Outcome {
            status: Status::Skipped,
            error: Some(error),
        };
    }
}

fn is_gone(refusal: &Refusal) -> bool {
    matches!(refusal.errno, ENOENT | ESRCH | ENODEV | EADDRNOTAVAIL)
}

fn failed(refusal: &Refusal) -> Outcome {
    Outcome {
        status: Status::Failed,
        error: Some(refusal.to_string()),
    }
}
