//! `tunnelform doctor`: can this host do it?

use std::fs;
use std::path::{Path, PathBuf};

use anstyle::AnsiColor;
use rustix::thread::{CapabilitySet, capabilities};
use tunnelform::kernel::{Extent, Kernel, inside_namespace, release_at_least};
use tunnelform::plan::Style;
use tunnelform::state::{InterfaceName, Kind, Observed};
use tunnelform::topology::{Owner, Protocol};

use super::input::Netns;
use super::{DONE, FAILED, Output, Result, Terminal, print, print_json};

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  tunnelform doctor\n  tunnelform doctor --netns blue --output json\n\n\
                        Exit codes: 0 nothing fails (warnings or none), 1 something does."
)]
pub(super) struct Doctor {
    #[command(flatten)]
    netns: Netns,
    /// Form of the output.
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

#[derive(Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Warn,
    Fail,
}

/// One thing that was looked at.
#[derive(serde::Serialize)]
struct Check {
    name: &'static str,
    verdict: Verdict,
    found: String,
    /// The command that mends it.
    mend: Option<String>,
}

#[derive(serde::Serialize)]
struct Report {
    format_version: u32,
    verdict: Verdict,
    checks: Vec<Check>,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self {
            name,
            verdict: Verdict::Ok,
            found: found.into(),
            mend: None,
        }
    }

    fn warn(name: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self {
            name,
            verdict: Verdict::Warn,
            found: found.into(),
            mend: Some(mend.into()),
        }
    }

    fn fail(name: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self {
            name,
            verdict: Verdict::Fail,
            found: found.into(),
            mend: Some(mend.into()),
        }
    }
}

impl Doctor {
    pub(super) fn run(self, terminal: &Terminal) -> Result {
        let mut kernel = Kernel::open(self.netns.name())?;
        let own = Protocol::DEFAULT.0;
        let extent = Extent {
            protocol: Some(own),
            own_protocol: own,
            paths: Default::default(),
            counters: false,
        };
        let observed = kernel.observe(&extent)?;
        let release = rustix::system::uname()
            .release()
            .to_string_lossy()
            .into_owned();
        let mut checks = vec![
            kernel_release(&release),
            ipip(&release, &observed),
            privilege(),
        ];
        checks.push(address_marks(&observed, &release));
        checks.push(strict_dumps(&kernel));
        checks.extend(inside_namespace(self.netns.name(), || sysctls(&observed))?);
        checks.push(foreign_tunnels(&observed));
        checks.push(networkd());
        let verdict = match () {
            () if checks.iter().any(|check| check.verdict == Verdict::Fail) => Verdict::Fail,
            () if checks.iter().any(|check| check.verdict == Verdict::Warn) => Verdict::Warn,
            () => Verdict::Ok,
        };
        let report = Report {
            format_version: 1,
            verdict,
            checks,
        };
        match self.output {
            Output::Json => print_json(&report)?,
            Output::Text => print(&text(&report, terminal.style()))?,
        }
        Ok(if verdict == Verdict::Fail {
            FAILED
        } else {
            DONE
        })
    }
}

fn text(report: &Report, style: Style) -> String {
    let mut text = String::new();
    for check in &report.checks {
        let (word, hue) = match check.verdict {
            Verdict::Ok => ("ok  ", AnsiColor::Green),
            Verdict::Warn => ("warn", AnsiColor::Yellow),
            Verdict::Fail => ("fail", AnsiColor::Red),
        };
        let hue = hue.on_default();
        let word = if style.color {
            format!("{hue}{word}{hue:#}")
        } else {
            word.to_owned()
        };
        text += &format!("{word}  {}: {}\n", check.name, check.found);
        if let Some(mend) = &check.mend {
            text += &format!("      -> {mend}\n");
        }
    }
    text
}

fn kernel_release(release: &str) -> Check {
    const NAME: &str = "kernel";
    if release_at_least(release, (4, 20)) {
        Check::ok(NAME, format!("Linux {release}"))
    } else {
        let found = format!("Linux {release}: tunnelform is made for 4.20 and later");
        Check::warn(NAME, found, "upgrade the kernel")
    }
}

/// Built in, a module that is loaded, one that can be, or none.
fn ipip(release: &str, observed: &Observed) -> Check {
    const NAME: &str = "ipip";
    let modules = [
        PathBuf::from("/lib/modules").join(release),
        PathBuf::from("/usr/lib/modules").join(release),
    ];
    let listed = |list: &str| {
        modules.iter().any(|directory| {
            let names = fs::read_to_string(directory.join(list)).unwrap_or_default();
            names
                .lines()
                .any(|line| line.split(':').next().is_some_and(is_ipip_module))
        })
    };
    if listed("modules.builtin") {
        Check::ok(NAME, "built into the kernel")
    } else if Path::new("/sys/module/ipip").exists()
        || observed.devices.values().any(|d| d.kind == "ipip")
    {
        Check::ok(NAME, "loaded")
    } else if listed("modules.dep") {
        Check::ok(
            NAME,
            "a module, loaded when the first tunnel is made (`modprobe ipip` loads it now)",
        )
    } else {
        let found =
            format!("neither built in nor loaded, and no module for {release} is installed");
        let mend = "install the kernel's modules (Debian: apt-get install linux-image-amd64; Ubuntu: apt-get install \
                    linux-modules-extra-$(uname -r)), then modprobe ipip; in a container, do it on its host";
        Check::fail(NAME, found, mend)
    }
}

fn is_ipip_module(path: &str) -> bool {
    let file = path.rsplit('/').next().unwrap_or(path);
    file == "ipip.ko" || file.starts_with("ipip.ko.")
}

fn privilege() -> Check {
    const NAME: &str = "CAP_NET_ADMIN";
    match capabilities(None) {
        Ok(sets) if sets.effective.contains(CapabilitySet::NET_ADMIN) => Check::ok(NAME, "held"),
        Ok(_) => Check::fail(
            NAME,
            "not held: apply and destroy need it (dry runs don't)",
            "run as root, with sudo",
        ),
        Err(errno) => Check::warn(
            NAME,
            format!("can't be asked: {errno}"),
            "run as root, with sudo",
        ),
    }
}

fn address_marks(observed: &Observed, release: &str) -> Check {
    const NAME: &str = "marks on addresses (IFA_PROTO)";
    if observed.marks_addresses {
        Check::ok(NAME, "supported")
    } else {
        let found = format!(
            "Linux {release} has none: addresses outside our tunnels are added but never pruned"
        );
        Check::warn(NAME, found, "upgrade to Linux 5.18 or later")
    }
}

fn strict_dumps(kernel: &Kernel) -> Check {
    const NAME: &str = "filtered dumps (NETLINK_GET_STRICT_CHK)";
    if kernel.filters_dumps() {
        Check::ok(NAME, "supported")
    } else {
        let found = "not supported: each pass reads every route, which is slow beside many";
        Check::warn(NAME, found, "upgrade to Linux 4.20 or later")
    }
}

/// Settings under /proc/sys/net, which shows the namespace of the thread that reads it.
fn sysctls(observed: &Observed) -> Vec<Check> {
    let mut checks = vec![forwarding()];
    let all = sysctl("all/rp_filter").unwrap_or(0);
    let mut strict = Vec::new();
    for device in concerned_devices(observed) {
        // The kernel takes the larger of the two (ip-sysctl.rst).
        let filter = sysctl(&format!("{device}/rp_filter")).unwrap_or(0).max(all);
        if filter == 1 {
            strict.push(device.to_string());
        }
    }
    const NAME: &str = "rp_filter";
    checks.push(if strict.is_empty() {
        Check::ok(NAME, "no device concerned filters strictly")
    } else {
        let list = strict.join(" ");
        let found = format!(
            "strict on {list}: packets that come in where their answers don't go out are dropped"
        );
        let command = format!("for d in {list}; do sysctl -w net.ipv4.conf.$d.rp_filter=2; done");
        Check::warn(NAME, found, command)
    });
    checks
}

fn forwarding() -> Check {
    const NAME: &str = "ip_forward";
    match fs::read_to_string("/proc/sys/net/ipv4/ip_forward")
        .as_deref()
        .map(str::trim)
    {
        Ok("1") => Check::ok(NAME, "on"),
        Ok(_) => {
            let found = "off: fine for a host that only ends tunnels, not for one that forwards between networks";
            Check::warn(NAME, found, "sysctl -w net.ipv4.ip_forward=1")
        }
        Err(error) => Check::warn(
            NAME,
            format!("can't be read: {error}"),
            "mount -t proc proc /proc",
        ),
    }
}

fn sysctl(name: &str) -> Option<u32> {
    fs::read_to_string(format!("/proc/sys/net/ipv4/conf/{name}"))
        .ok()?
        .trim()
        .parse()
        .ok()
}

/// The tunnels, and the devices that carry their local ends or that they are bound to.
fn concerned_devices(observed: &Observed) -> Vec<InterfaceName> {
    let mut devices = Vec::new();
    for (name, tunnel) in &observed.state.tunnels {
        let Kind::Ipip(ipip) = &tunnel.kind;
        if ipip.local.is_none() && ipip.remote.is_none() && ipip.device.is_none() {
            continue;
        }
        let local = ipip.local.map(std::net::IpAddr::from);
        let holders = observed
            .state
            .addresses
            .keys()
            .filter(|key| Some(key.local) == local)
            .map(|key| key.device);
        devices.extend([*name].into_iter().chain(ipip.device).chain(holders));
    }
    devices.sort();
    devices.dedup();
    devices
}

fn foreign_tunnels(observed: &Observed) -> Check {
    const NAME: &str = "other IPIP tunnels";
    let names = observed.state.tunnels.iter().filter(|(name, tunnel)| {
        Owner::of_alias(&tunnel.alias).is_none() && name.as_bytes() != b"tunl0"
    });
    let names: Vec<String> = names.map(|(name, _)| name.to_string()).collect();
    if names.is_empty() {
        return Check::ok(NAME, "none");
    }
    let found = format!("{} (left alone; no topology owns them)", names.join(", "));
    Check::warn(
        NAME,
        found,
        "name them in a topology and run tunnelform apply --adopt FILE, or leave them",
    )
}

/// systemd-networkd removes routes that it doesn't know when a device that it manages comes up, unless told not to.
fn networkd() -> Check {
    const NAME: &str = "systemd-networkd";
    if !Path::new("/run/systemd/netif/state").exists() {
        return Check::ok(NAME, "not running");
    }
    if networkd_keeps_foreign_routes() {
        return Check::ok(NAME, "running, and told to keep foreign routes");
    }
    let found =
        "running, and may remove routes that aren't its own when it starts or a device comes up";
    let mend = "mkdir -p /etc/systemd/networkd.conf.d && printf '[Network]\\nManageForeignRoutes=no\\n' > \
                /etc/systemd/networkd.conf.d/tunnelform.conf && systemctl restart systemd-networkd";
    Check::warn(NAME, found, mend)
}

fn networkd_keeps_foreign_routes() -> bool {
    let mut files = vec![PathBuf::from("/etc/systemd/networkd.conf")];
    for directory in ["/usr/lib", "/run", "/etc"] {
        let entries = fs::read_dir(Path::new(directory).join("systemd/networkd.conf.d"));
        files.extend(
            entries
                .into_iter()
                .flatten()
                .flatten()
                .map(|entry| entry.path()),
        );
    }
    let mut off = false;
    for text in files
        .iter()
        .filter_map(|file| fs::read_to_string(file).ok())
    {
        for line in text.lines() {
            if let Some(value) = line
                .trim()
                .strip_prefix("ManageForeignRoutes")
                .and_then(|rest| rest.trim_start().strip_prefix('='))
            {
                off = matches!(
                    value.trim().to_ascii_lowercase().as_str(),
                    "no" | "false" | "off" | "0"
                );
            }
        }
    }
    off
}
