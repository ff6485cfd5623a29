//! Whether a host has what it should, as `ip` sees it: nobody wins by doing less.

use std::process::Command;

use serde::Deserialize;

use crate::measure::Host;
use crate::workload::{Case, GATEWAYS, LOCAL, Step, routes, tunnels};

#[derive(Deserialize)]
struct Link {
    ifname: String,
    flags: Vec<String>,
    mtu: u32,
    linkinfo: Option<LinkInfo>,
}

#[derive(Deserialize)]
struct LinkInfo {
    info_kind: Option<String>,
    #[serde(default)]
    info_data: Options,
}

/// How the tunnel is marked, and whether `mode` is `ipip` or `any`, is not for all peers to say.
#[derive(Deserialize, Default)]
struct Options {
    local: Option<String>,
    remote: Option<String>,
    pmtudisc: Option<bool>,
}

#[derive(Deserialize)]
struct Device {
    ifname: String,
    addr_info: Vec<Address>,
}

#[derive(Deserialize)]
struct Address {
    family: String,
    local: String,
    prefixlen: u8,
}

#[derive(Deserialize)]
struct Route {
    dst: String,
    dev: Option<String>,
    gateway: Option<String>,
    protocol: Option<String>,
}

/// What differs, where the host isn't as it should be after a step.
pub fn check(host: &Host, case: Case, step: Step) -> Result<(), String> {
    let (mut seen, mut wanted) = (seen(host), wanted(case, step));
    seen.sort_unstable();
    wanted.sort_unstable();
    if seen == wanted {
        return Ok(());
    }
    let only = |these: &[String], those: &[String]| -> Vec<String> {
        let missing = |row: &&String| those.binary_search(row).is_err();
        these.iter().filter(missing).take(5).cloned().collect()
    };
    Err(format!(
        "{}: not as it should be, so its time says nothing. Too much: {:#?}, missing: {:#?}",
        step.name(),
        only(&seen, &wanted),
        only(&wanted, &seen)
    ))
}

fn wanted(case: Case, step: Step) -> Vec<String> {
    let mut rows = Vec::new();
    match case {
        _ if step == Step::Delete => {}
        Case::Tunnels(count) => {
            for t in tunnels(count, step) {
                let name = format!("t{}", t.number);
                rows.push(tunnel(
                    &name,
                    true,
                    t.mtu,
                    &LOCAL.to_string(),
                    &t.remote.to_string(),
                    true,
                ));
                rows.push(format!("{name} {}/30", t.address));
                rows.push(format!("{}/24 {name} -", t.route));
            }
        }
        Case::Routes(count) => {
            rows.extend(routes(count, step).map(|r| format!("{} eth0 {}", r.to, r.via)));
        }
    }
    rows
}

fn seen(host: &Host) -> Vec<String> {
    let mut rows = Vec::new();
    for link in show::<Link>(host, &["link", "show"]) {
        let Some(info) = link.linkinfo.filter(|_| link.ifname != "tunl0") else {
            continue;
        };
        if info.info_kind.as_deref() == Some("ipip") {
            let data = info.info_data;
            let is_up = link.flags.iter().any(|flag| flag == "UP");
            let word = |word: Option<String>| word.unwrap_or_default();
            let (local, remote) = (word(data.local), word(data.remote));
            let pmtudisc = data.pmtudisc == Some(true);
            rows.push(tunnel(
                &link.ifname,
                is_up,
                link.mtu,
                &local,
                &remote,
                pmtudisc,
            ));
        }
    }
    for device in show::<Device>(host, &["addr", "show"]) {
        if device.ifname == "lo" || device.ifname == "eth0" {
            continue;
        }
        let own = device
            .addr_info
            .iter()
            .filter(|address| address.family == "inet");
        rows.extend(own.map(|a| format!("{} {}/{}", device.ifname, a.local, a.prefixlen)));
    }
    let default = GATEWAYS[0].to_string();
    for route in show::<Route>(host, &["route", "show"]) {
        let gateway = route.gateway.as_deref().unwrap_or("-");
        let comes_with_the_host = route.dst == "default" && gateway == default;
        let device = route.dev.as_deref().unwrap_or("-");
        if route.protocol.as_deref() != Some("kernel") && !comes_with_the_host {
            rows.push(format!("{} {device} {gateway}", route.dst));
        }
    }
    rows
}

fn tunnel(name: &str, up: bool, mtu: u32, local: &str, remote: &str, pmtudisc: bool) -> String {
    format!("{name} up {up} mtu {mtu} local {local} remote {remote} pmtudisc {pmtudisc}")
}

fn show<T: for<'a> Deserialize<'a>>(host: &Host, what: &[&str]) -> Vec<T> {
    let output = Command::new("ip")
        .args(["-n", host.name(), "-details", "-json"])
        .args(what)
        .output()
        .unwrap_or_else(|error| panic!("ip: {error}"));
    assert!(output.status.success(), "ip {what:?}: {}", output.status);
    if output.stdout.is_empty() {
        return Vec::new();
    }
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error} in what ip {what:?} says"))
}
