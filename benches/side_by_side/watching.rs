//! What the daemon costs while nothing happens that concerns it.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use serde::Serialize;

use crate::measure::Host;
use crate::peers::{Field, Peer, this_program, tunnelform};
use crate::seen;
use crate::workload::{Case, Step};

/// What the daemon is watched in.
pub const IDLE: &str = "idle";
pub const BESIDE: &str = "beside a routing daemon";

const MINUTE: Duration = Duration::from_secs(60);
/// Changes of somebody else's routes, a second.
const RATE: u32 = 50_000;
const FLOOD: Duration = Duration::from_secs(10);
/// In which the kernel counts a process's time, a second; the same on nearly every architecture.
const USER_HZ: f64 = 100.0;
/// What it may take to mend a tunnel.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, Serialize)]
pub struct Watched {
    pub what: &'static str,
    pub seconds: f64,
    /// Of routes that are somebody else's, a second.
    pub changes: f64,
    /// How often any of its threads was woken, a minute.
    pub wakes: f64,
    /// A part of one processor.
    pub processor: f64,
    /// Resident.
    pub bytes: f64,
}

/// Idle for a minute, then beside a routing daemon; whether it still sees to its own is tried in the end.
pub fn watch(field: &Field) -> Result<Vec<Watched>, String> {
    let case = Case::Tunnels(10);
    let failed = |error: io::Error| format!("the daemon: {error}");
    field.write(Peer::Tunnelform, case).map_err(failed)?;
    let host = Host::new("watched");
    let mut daemon = Daemon::start(field, &host).map_err(failed)?;
    let idle = daemon.observe(IDLE, || {
        thread::sleep(MINUTE);
        Ok(0.0)
    })?;
    let beside = daemon.observe(BESIDE, || {
        let (rate, seconds) = (RATE.to_string(), FLOOD.as_secs().to_string());
        let flood = [&this_program(), "raw", "flood", &rate, &seconds].map(str::to_owned);
        let made = host.inside(&flood)?;
        let made = String::from_utf8_lossy(&made);
        made.trim().parse().map_err(|_| format!("flood: {made:?}"))
    })?;
    mends(&host, case)?;
    Ok(vec![idle, beside])
}

/// Whoever hears nothing costs nothing.
fn mends(host: &Host, case: Case) -> Result<(), String> {
    crate::measure::ip(&["-n", host.name(), "link", "set", "t0", "mtu", "1300"]);
    let start = Instant::now();
    loop {
        match seen::check(host, case, Step::NoOp) {
            Err(_) if start.elapsed() < PATIENCE => thread::sleep(Duration::from_millis(50)),
            outcome => return outcome,
        }
    }
}

struct Daemon {
    child: Child,
    /// Kept open: what is logged has to go somewhere.
    _log: BufReader<ChildStderr>,
}

impl Daemon {
    /// Once its first pass is over, and what that had set off.
    fn start(field: &Field, host: &Host) -> io::Result<Self> {
        let mut child = Command::new(tunnelform())
            .args(["watch", "--netns", host.name()])
            .arg(field.topology(Step::NoOp))
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let stderr = child.stderr.take();
        let mut log = BufReader::new(stderr.ok_or_else(|| io::Error::other("no log"))?);
        let mut line = String::new();
        while !line.contains("pass: ") {
            line.clear();
            if log.read_line(&mut line)? == 0 {
                return Err(io::Error::other("it has ended"));
            }
        }
        thread::sleep(Duration::from_secs(2));
        Ok(Self { child, _log: log })
    }

    /// What it costs during something that tells how many changes it made.
    fn observe(
        &mut self,
        what: &'static str,
        during: impl FnOnce() -> Result<f64, String>,
    ) -> Result<Watched, String> {
        let (before, start) = (self.counters()?, Instant::now());
        let changes = during()?;
        let (after, seconds) = (self.counters()?, start.elapsed().as_secs_f64());
        Ok(Watched {
            what,
            seconds,
            changes: changes / seconds,
            wakes: (after.wakes - before.wakes) * 60.0 / seconds,
            processor: (after.ticks - before.ticks) / USER_HZ / seconds,
            bytes: after.bytes,
        })
    }

    fn counters(&self) -> Result<Counters, String> {
        let process = format!("/proc/{}", self.child.id());
        let failed = |error: io::Error| format!("{process}: {error}");
        let mut wakes = 0.0;
        for task in fs::read_dir(format!("{process}/task")).map_err(failed)? {
            let status = fs::read_to_string(task.map_err(failed)?.path().join("status"));
            wakes += number(&status.map_err(failed)?, "voluntary_ctxt_switches:")?;
        }
        let status = fs::read_to_string(format!("{process}/status")).map_err(failed)?;
        let stat = fs::read_to_string(format!("{process}/stat")).map_err(failed)?;
        Ok(Counters {
            wakes,
            ticks: ticks(&stat).ok_or_else(|| format!("{process}/stat: {stat:?}"))?,
            bytes: 1024.0 * number(&status, "VmRSS:")?,
        })
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Counters {
    wakes: f64,
    ticks: f64,
    bytes: f64,
}

/// A number in a `status` file.
fn number(status: &str, name: &str) -> Result<f64, String> {
    let mut lines = status.lines().filter_map(|line| line.strip_prefix(name));
    let number = lines.find_map(|rest| rest.split_whitespace().next()?.parse().ok());
    number.ok_or_else(|| format!("no {name} in {status:?}"))
}

/// Time in user and kernel mode, behind the name in parentheses, which may hold anything.
fn ticks(stat: &str) -> Option<f64> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |place: usize| fields.get(place)?.parse::<f64>().ok();
    Some(ticks(11)? + ticks(12)?)
}
