//! Carrying out a plan: its steps as messages, in its order, with as few sends as can be.
//!
//! Nothing is decided here. The order is the plan's; only where a step needs the index of a device that an earlier
//! step makes, what is queued goes out first and the indices are read once.

use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::socket::{BATCH_MESSAGES, Channel, Request};
use super::{Error, Indices, OnRefusal, Refusal, address, link, route, snapshot};
use crate::plan::{
    Action, Change, Delta, Outcome, Part, Plan, Status, Step, address_on, leaving, led_over,
    stand_in, waiting,
};
use crate::state::{Address, AddressKey, InterfaceName, Observed, Tunnel};

const ENOENT: i32 = 2;
const ESRCH: i32 = 3;
const ENODEV: i32 = 19;
const EINVAL: i32 = 22;
const EAFNOSUPPORT: i32 = 97;
const EADDRNOTAVAIL: i32 = 99;

/// The longest duplicate address detection: a random delay of up to a second, then a second for each of its probes, one
/// unless someone set more (`dad_transmits`).
const DETECTION_LIMIT: Duration = Duration::from_secs(5);
const DETECTION_LOOK: Duration = Duration::from_millis(20);

/// The group that tunnels are moved into to be deleted at once, or the next one that is free: `tunl` in ASCII.
const SPARE_GROUP: u32 = 0x7475_6e6c;
/// So many that one send moves them there and deletes the group.
const MOST_IN_GROUP: usize = BATCH_MESSAGES - 1;

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
        run.acknowledge_preparation(step)?;
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
            (Change::Tunnel(name, _), Part::Clear) => self.plan.stand_ins.get(name).copied(),
            _ => None,
        }
    }

    /// What a tunnel carried has to go over its stand-in before the tunnel is deleted.
    fn acknowledge_preparation(&mut self, step: &Step) -> Result<(), Error> {
        let stand_in = match (&self.plan.changes[step.change], step.part) {
            (Change::Tunnel(name, _), Part::Remove) => self.plan.stand_ins.get(name),
            _ => None,
        };
        match stand_in {
            Some(stand_in) if self.renewed.contains(stand_in) => self.renew_indices(),
            Some(_) => self.flush(),
            None => Ok(()),
        }
    }

    /// Whether a tunnel's stand-in couldn't be made, so that the tunnel stays as it is.
    fn is_called_off(&self, step: &Step) -> bool {
        match &self.plan.changes[step.change] {
            Change::Tunnel(name, _) if step.part != Part::Prepare => {
                let stand_in = self.plan.stand_ins.get(name);
                stand_in.is_some_and(|stand_in| !self.indices.contains_key(stand_in))
            }
            Change::Tunnel(..) | Change::Address(..) | Change::Route(..) => false,
        }
    }

    fn step(&mut self, step: Step) -> Result<(), Error> {
        let plan = self.plan;
        let change = &plan.changes[step.change];
        if self.is_called_off(&step) {
            return Ok(());
        }
        self.renew_indices_for(step)?;
        let encoded = match change {
            Change::Tunnel(name, delta) => self.tunnel(*name, delta, step.part),
            Change::Address(key, delta) => self.address(key, delta, step.part),
            Change::Route(key, delta) => match (step.part, delta.before(), delta.after()) {
                (Part::Remove, Some(route), _) => {
                    route::delete(key, route, &self.indices).map(|request| vec![request])
                }
                (Part::Put, _, Some(route)) => {
                    let new = self.is_new(change);
                    route::put(key, route, &self.indices, new).map(|request| vec![request])
                }
                (Part::Prepare, _, Some(route)) => {
                    let route = led_over(route, |device| plan.stand_ins.get(&device).copied());
                    route::put(key, &route, &self.indices, false).map(|request| vec![request])
                }
                _ => Ok(Vec::new()),
            },
        };
        let removes = matches!(step.part, Part::Remove | Part::Clear);
        match encoded {
            Ok(requests) => {
                self.make_room(requests.len())?;
                self.queue
                    .extend(requests.into_iter().map(|request| Queued {
                        change: step.change,
                        request,
                        removes,
                    }));
            }
            // What is said of the tunnel that has no stand-in is enough.
            Err(_) if step.part == Part::Prepare => {}
            // What is to go is gone with its device.
            Err(_) if removes => self.done(step.change),
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
        let stand_in = self.plan.stand_ins.get(&name).copied();
        match (part, delta, stand_in) {
            (Part::Remove, ..) => {
                self.forget_index(name, delta);
                Ok(vec![link::delete(self.index(name)?)])
            }
            (Part::Put, Delta::Update { from, to }, _) => {
                link::update(self.index(name)?, from, to, &self.indices)
                    .map(|request| vec![request])
            }
            // With its own index again all that is on it can follow in the same send, and who knows it by its index
            // still does.
            (Part::Put, Delta::Replace { to, .. }, _) if self.indices.contains_key(&name) => {
                let index = self.indices.get(&name).copied();
                let to = stand_in.map_or_else(|| to.clone(), |_| waiting(to));
                link::create(name, index, &to, &self.indices)
            }
            (
                Part::Put,
                Delta::Create(to) | Delta::Replace { to, .. } | Delta::Restore { to, .. },
                _,
            ) => {
                self.renewed.insert(name);
                link::create(name, None, to, &self.indices)
            }
            (Part::Prepare, Delta::Replace { from, to, .. }, Some(stand_in)) => {
                self.renewed.insert(stand_in);
                match self::stand_in(from, to) {
                    Some(made) => link::create(stand_in, None, &made, &self.indices),
                    None => Ok(Vec::new()),
                }
            }
            (Part::TakeOver, Delta::Replace { to, .. }, Some(stand_in)) => {
                let (hands_over, takes_over) = (self.index(stand_in)?, self.index(name)?);
                Ok(vec![
                    link::update(hands_over, to, &leaving(to), &self.indices)?,
                    link::update(takes_over, &waiting(to), to, &self.indices)?,
                ])
            }
            (Part::Clear, _, Some(stand_in)) => Ok(vec![link::delete(self.index(stand_in)?)]),
            (Part::Put, Delta::Delete { .. }, _)
            | (Part::Prepare | Part::TakeOver | Part::Clear, ..) => Ok(Vec::new()),
        }
    }

    fn address(
        &self,
        key: &AddressKey,
        delta: &Delta<Address>,
        part: Part,
    ) -> Result<Vec<Request>, InterfaceName> {
        let (old, new) = (delta.before(), delta.after());
        let stand_in = self.plan.stand_ins.get(&key.device);
        let put = |key: &AddressKey, address: &Address, is_new: bool| {
            let on_tunnel = part == Part::Prepare || self.tunnels.contains(&key.device);
            let index = self.index(key.device)?;
            Ok(vec![address::put(key, address, index, is_new, on_tunnel)])
        };
        let delete = |key: &AddressKey, address: &Address| {
            Ok(vec![address::delete(key, address, self.index(key.device)?)])
        };
        match (part, old, new, stand_in) {
            (Part::Remove, Some(old), ..) => delete(key, old),
            (Part::Put, _, Some(new), _) => put(key, new, delta.action() == Action::Create),
            (Part::Prepare, _, Some(new), Some(stand_in)) => {
                let (key, new) = address_on(*stand_in, key, new);
                put(&key, &new, true)
            }
            (Part::Clear, _, Some(new), Some(stand_in)) => {
                let (key, new) = address_on(*stand_in, key, new);
                delete(&key, &new)
            }
            (Part::Remove | Part::Put | Part::Prepare | Part::TakeOver | Part::Clear, ..) => {
                Ok(Vec::new())
            }
        }
    }

    fn index(&self, device: InterfaceName) -> Result<u32, InterfaceName> {
        self.indices.get(&device).copied().ok_or(device)
    }

    /// Whether a route mustn't be there yet. One that leads over a stand-in is.
    fn is_new(&self, change: &Change) -> bool {
        let mut devices = change.devices().into_iter();
        change.action() == Action::Create
            && !devices.any(|device| self.plan.stand_ins.contains_key(&device))
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
        let mut chunks = steps.chunks(MOST_IN_GROUP);
        chunks.try_for_each(|steps| self.remove_group(steps, group))
    }

    /// In one send: who is killed in between leaves no tunnel in a group that isn't its own.
    fn remove_group(&mut self, steps: &[Step], group: u32) -> Result<(), Error> {
        let (mut moved, mut requests) = (Vec::new(), Vec::new());
        for step in steps {
            let Change::Tunnel(_, delta) = &self.plan.changes[step.change] else {
                continue;
            };
            let Some(name) = self
                .removed_tunnel(step)
                .filter(|_| !self.is_called_off(step))
            else {
                continue;
            };
            match self.indices.get(&name) {
                Some(index) => {
                    requests.push(link::set_group(*index, group));
                    moved.push(step.change);
                }
                None => self.done(step.change),
            }
            self.forget_index(name, delta);
        }
        requests.push(link::delete_group(group));
        let mut answers = self.channel.transact(requests)?;
        let group = answers.pop().unwrap_or(Ok(()));
        for (change, answer) in moved.into_iter().zip(answers) {
            match answer.and(group.clone()) {
                Err(refusal) if !is_gone(&refusal) => {
                    self.outcomes[change] = failed(&refusal);
                    self.refused = true;
                }
                Ok(()) | Err(_) => self.done(change),
            }
        }
        Ok(())
    }

    fn renew_indices_for(&mut self, step: Step) -> Result<(), Error> {
        let over_stand_in = matches!(step.part, Part::Prepare | Part::Clear);
        let needs = |device: InterfaceName| {
            let stand_in = self.plan.stand_ins.get(&device).filter(|_| over_stand_in);
            self.renewed.contains(stand_in.unwrap_or(&device))
        };
        let stale = match &self.plan.changes[step.change] {
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
        match stale {
            true => self.renew_indices(),
            false => Ok(()),
        }
    }

    fn renew_indices(&mut self) -> Result<(), Error> {
        self.flush()?;
        self.indices = snapshot::indices(self.channel)?;
        self.renewed.clear();
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
                Err(refusal) if !self.is_as_wanted(change, removes, &refusal) => {
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

    /// Whether a request was refused because all is already as it would make it.
    fn is_as_wanted(&self, change: usize, removes: bool, refusal: &Refusal) -> bool {
        match self.plan.changes[change] {
            _ if removes => is_gone(refusal),
            // Where there is no IPv6 no address of it is made.
            Change::Tunnel(..) => refusal.errno == EAFNOSUPPORT,
            Change::Address(..) | Change::Route(..) => false,
        }
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
            let new = self.is_new(&self.plan.changes[change]);
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
