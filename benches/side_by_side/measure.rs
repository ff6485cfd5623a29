//! A program's time, peak memory, system calls and netlink messages.
//!
//! This program runs itself again, as `measure COMMAND…`, to run another: a child's peak memory counts from before its
//! `exec`, and that of a small parent is small.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;
use std::{fs, io, mem};

use serde::{Deserialize, Serialize};

use crate::peers::this_program;

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Cost {
    pub seconds: f64,
    /// At the peak, of the largest process.
    pub kilobytes: i64,
}

/// What one run asks of the kernel. It doesn't depend on the machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Calls {
    pub system_calls: usize,
    pub sends: usize,
    /// Netlink messages in these sends.
    pub messages: usize,
}

/// Runs a command, as `measure`, and tells what it has cost.
pub fn main(command: &[String]) -> io::Result<()> {
    let start = Instant::now();
    let status = Command::new(&command[0])
        .args(&command[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()?;
    let seconds = start.elapsed().as_secs_f64();
    if !status.success() {
        return Err(io::Error::other(format!("{}: {status}", command.join(" "))));
    }
    let cost = Cost {
        seconds,
        kilobytes: peak()?,
    };
    println!("{}", serde_json::to_string(&cost)?);
    Ok(())
}

/// The largest child's peak memory.
fn peak() -> io::Result<i64> {
    // SAFETY: all zeros is a valid rusage, and the kernel fills no more than that.
    let (code, usage) = unsafe {
        let mut usage: libc::rusage = mem::zeroed();
        (libc::getrusage(libc::RUSAGE_CHILDREN, &mut usage), usage)
    };
    match code {
        0 => Ok(usage.ru_maxrss),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Which kernel this is, and on what it runs: `Linux 6.1.139, 1 × UML`.
pub fn kernel() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let processors = read("/proc/cpuinfo");
    let models: Vec<&str> = processors
        .lines()
        .filter_map(|line| Some(line.strip_prefix("model name")?.split_once(':')?.1.trim()))
        .collect();
    let release = read("/proc/sys/kernel/osrelease");
    let model = models.first().unwrap_or(&"processor");
    format!("Linux {}, {} × {model}", release.trim(), models.len())
}

/// A network namespace that goes with this value.
pub struct Host(&'static str);

impl Host {
    /// A new one, where `eth0` is 192.168.10.2/24 with a default route.
    pub fn new(name: &'static str) -> Self {
        let eth0 = "link set lo up\nlink add eth0 up type dummy\naddr add 192.168.10.2/24 dev eth0\n\
                    route add default via 192.168.10.1\n";
        let batch = Path::new("/run").join(format!("{name}.batch"));
        fs::write(&batch, eth0).unwrap_or_else(|error| panic!("{}: {error}", batch.display()));
        ip(&["netns", "add", name]);
        let host = Self(name);
        ip(&["-n", name, "-batch", &crate::peers::text(&batch)]);
        host
    }

    pub const fn name(&self) -> &'static str {
        self.0
    }

    /// Runs a command inside, and measures it. Otherwise what it said.
    pub fn measure(&self, command: &[String]) -> Result<Cost, String> {
        let output = self.inside(&[&[this_program(), "measure".into()], command].concat())?;
        serde_json::from_slice(&output).map_err(|error| format!("{error} in what `measure` says"))
    }

    /// Runs a command inside, and counts what it asks of the kernel.
    pub fn count(&self, command: &[String]) -> Result<Calls, String> {
        const LOG: &str = "/run/strace";
        // What is received would be decoded at length, and isn't counted.
        let strace = "strace -f -qq -e raw=recvfrom,recvmsg,recvmmsg -e abbrev=!sendto,sendmsg -o";
        let strace = strace.split(' ').chain([LOG]).map(str::to_owned);
        self.inside(&strace.chain(command.iter().cloned()).collect::<Vec<_>>())?;
        let log = fs::read(LOG).map_err(|error| format!("{LOG}: {error}"))?;
        Ok(calls(&String::from_utf8_lossy(&log)))
    }

    /// As on a machine of its own: ifstate refuses to run where PID 1 has another network, and sees to every namespace
    /// that has a name.
    pub fn inside(&self, command: &[String]) -> Result<Vec<u8>, String> {
        const ALONE: &str = "mount -t tmpfs tmpfs /run/netns && exec \"$@\"";
        let unshare = "unshare --mount --pid --fork --kill-child --mount-proc sh -c";
        let output = Command::new("ip")
            .args(["netns", "exec", self.0])
            .args(unshare.split(' '))
            .args([ALONE, "sh"])
            .args(command)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("ip: {error}"))?;
        match output.status.success() {
            true => Ok(output.stdout),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        ip(&["netns", "del", self.0]);
    }
}

pub fn ip(arguments: &[&str]) {
    let status = Command::new("ip").args(arguments).status();
    let status = status.unwrap_or_else(|error| panic!("ip: {error}"));
    assert!(status.success(), "ip {arguments:?}: {status}");
}

/// A call that another thread's line cuts in two is counted once.
fn calls(log: &str) -> Calls {
    let mut calls = Calls::default();
    for line in log.lines() {
        let call = line
            .split_once(' ')
            .map_or("", |(_, call)| call.trim_start());
        if call.starts_with(['+', '-', '<']) {
            continue;
        }
        calls.system_calls += 1;
        if call.starts_with("sendto(") || call.starts_with("sendmsg(") {
            let messages = call.matches("nlmsg_len=").count();
            calls.messages += messages;
            calls.sends += usize::from(messages > 0);
        }
    }
    calls
}

/// The middle one.
pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => values[count / 2],
        count => f64::midpoint(values[count / 2 - 1], values[count / 2]),
    }
}
