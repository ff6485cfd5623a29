//! Who is compared, and what each is given to read for the same result.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use crate::workload::{Case, GATEWAYS, LOCAL, MTUS, Step, routes, tunnels};

/// Infallible.
macro_rules! line {
    ($text:ident, $($argument:tt)*) => { let _ = writeln!($text, $($argument)*); };
}

/// What every topology begins with.
const HEAD: &str = "version: 1\nname: bench\n";
/// The routes' own file, beside the topology.
const LIST: &str = "list.txt";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    Tunnelform,
    IpBatch,
    Raw,
    Ifstate,
    Ifupdown2,
}

impl Peer {
    pub const ALL: [Self; 5] = [
        Self::Tunnelform,
        Self::IpBatch,
        Self::Raw,
        Self::Ifstate,
        Self::Ifupdown2,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Tunnelform => "tunnelform",
            Self::IpBatch => "ip -batch",
            Self::Raw => "raw netlink",
            Self::Ifstate => "ifstate",
            Self::Ifupdown2 => "ifupdown2",
        }
    }

    /// Minutes a case are of no use to anybody: who takes them sits the large ones out. ifupdown2 has no routes of its own.
    pub const fn takes(self, case: Case) -> bool {
        match (self, case) {
            (Self::Tunnelform | Self::IpBatch | Self::Raw, _) => true,
            (Self::Ifstate | Self::Ifupdown2, Case::Tunnels(count)) => count <= 200,
            (Self::Ifstate, Case::Routes(count)) => count <= 1_000,
            (Self::Ifupdown2, Case::Routes(_)) => false,
        }
    }

    /// Whether one round has to do for all but the smallest case.
    pub const fn is_slow(self) -> bool {
        match self {
            Self::Tunnelform | Self::IpBatch | Self::Raw => false,
            Self::Ifstate | Self::Ifupdown2 => true,
        }
    }

    const fn folder(self) -> &'static str {
        match self {
            Self::Tunnelform => "tunnelform",
            Self::IpBatch => "ip",
            Self::Raw => "raw",
            Self::Ifstate => "ifstate",
            Self::Ifupdown2 => "ifupdown2",
        }
    }
}

/// The programs of those peers that could be had, and where their files go.
pub struct Field {
    pub peers: Vec<Peer>,
    programs: PathBuf,
    files: PathBuf,
}

impl Field {
    /// `programs` has what `make bench` has fetched. Who is missing is named on standard error.
    pub fn new(programs: PathBuf, files: PathBuf) -> Self {
        let mut field = Self {
            peers: Vec::new(),
            programs,
            files,
        };
        field.peers = Peer::ALL
            .into_iter()
            .filter(|peer| field.has(*peer))
            .collect();
        field
    }

    fn has(&self, peer: Peer) -> bool {
        let program = match peer {
            Peer::Tunnelform | Peer::IpBatch | Peer::Raw => return true,
            Peer::Ifstate => self.ifstate(),
            Peer::Ifupdown2 => self.ifupdown2("ifup"),
        };
        let there = program.exists();
        if !there {
            eprintln!(
                "LEFT OUT: {}, as {} isn't there. `make bench` fetches it",
                peer.name(),
                program.display()
            );
        }
        there
    }

    fn ifstate(&self) -> PathBuf {
        self.programs.join("venv/bin/ifstatecli")
    }

    fn ifupdown2(&self, program: &str) -> PathBuf {
        self.programs.join("ifupdown2/bin").join(program)
    }

    fn file(&self, peer: Peer, step: Step) -> PathBuf {
        self.files.join(peer.folder()).join(step.name())
    }

    /// The topology of a step, which `raw + parse` reads, too.
    pub fn topology(&self, step: Step) -> PathBuf {
        self.file(Peer::Tunnelform, step)
    }

    /// The topology that leaves the tunnels' MTU to the outer path.
    pub fn automatic(&self) -> PathBuf {
        self.files.join(Peer::Tunnelform.folder()).join("auto.yaml")
    }

    /// The topology that has its routes in a file of their own.
    pub fn listing(&self) -> PathBuf {
        self.files.join(Peer::Tunnelform.folder()).join("list.yaml")
    }

    fn write_list(&self, count: u32) -> io::Result<()> {
        let mut list = String::new();
        for route in routes(count, Step::NoOp) {
            line!(list, "{}/32 via {}", route.to, route.via);
        }
        let listing = self.listing();
        fs::write(listing.with_file_name(LIST), list)?;
        let file = format!("{{file: {LIST}, device: eth0}}");
        fs::write(listing, format!("{HEAD}routes: {file}\n"))
    }

    /// Writes what a peer reads in each step of a case.
    pub fn write(&self, peer: Peer, case: Case) -> io::Result<()> {
        for step in Step::ALL {
            let text = match peer {
                Peer::Tunnelform => topology(case, step),
                Peer::IpBatch => batch(case, step),
                Peer::Raw => continue,
                Peer::Ifstate => ifstate(case, step),
                Peer::Ifupdown2 => interfaces(case, step),
            };
            let path = self.file(peer, step);
            fs::create_dir_all(path.parent().unwrap_or(&path))?;
            fs::write(path, text)?;
        }
        match (peer, case) {
            (Peer::Tunnelform, Case::Routes(count)) => self.write_list(count),
            (Peer::Tunnelform, Case::Tunnels(_)) => {
                let text = topology(case, Step::NoOp).replace(&mtu(MTUS[0]), "");
                fs::write(self.automatic(), text)
            }
            _ => Ok(()),
        }
    }

    /// The command for a step.
    pub fn command(&self, peer: Peer, case: Case, step: Step) -> Vec<String> {
        let file = text(&self.file(peer, step));
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        match peer {
            Peer::Tunnelform => apply(Path::new(&file)),
            // It keeps some 4 KB of each line: User-mode Linux kills a process of more than 65,530 mappings, which are pages.
            Peer::IpBatch => words(&["sh", "-c", PARTS, "sh", &file]),
            Peer::Raw => {
                let kind = match case {
                    Case::Tunnels(_) => "tunnels",
                    Case::Routes(_) => "routes",
                };
                let count = case.size().to_string();
                words(&[&this_program(), "raw", step.name(), kind, &count])
            }
            Peer::Ifstate => words(&[&text(&self.ifstate()), "--quiet", "-c", &file, "apply"]),
            Peer::Ifupdown2 => {
                let program = if step == Step::Delete {
                    "ifdown"
                } else {
                    "ifup"
                };
                let program = text(&self.ifupdown2(program));
                words(&["/usr/bin/python3", &program, "-a", "-i", &file])
            }
        }
    }
}

/// Few enough lines for one `ip`.
const PARTS: &str = r#"[ "$(head -n 40001 "$1" | wc -l)" -gt 40000 ] || exec ip -batch "$1"
split -l 40000 "$1" "$1." && for part in "$1."*; do ip -batch "$part" || exit; done; rm "$1."*"#;

/// This very program, which is also the raw one, and the one that measures.
pub fn this_program() -> String {
    let this = env::current_exe();
    text(&this.unwrap_or_else(|error| panic!("no name of this program: {error}")))
}

/// Which tunnelform is measured; else the one that cargo has built for this program.
const TUNNELFORM: &str = "BENCH_TUNNELFORM";

/// The program that is measured.
pub fn tunnelform() -> String {
    env::var(TUNNELFORM).unwrap_or_else(|_| env!("CARGO_BIN_EXE_tunnelform").to_owned())
}

/// tunnelform's command for a topology.
pub fn apply(topology: &Path) -> Vec<String> {
    vec![tunnelform(), "apply".to_owned(), text(topology)]
}

pub fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn mtu(bytes: u32) -> String {
    format!(", mtu: {bytes}")
}

fn topology(case: Case, step: Step) -> String {
    let mut text = HEAD.to_owned();
    if step == Step::Delete {
        return text;
    }
    match case {
        Case::Tunnels(count) => {
            line!(text, "defaults: {{local: {LOCAL}}}\ntunnels:");
            for t in tunnels(count, step) {
                let (number, remote, address, route) = (t.number, t.remote, t.address, t.route);
                let mtu = mtu(t.mtu);
                line!(
                    text,
                    "  t{number}: {{remote: {remote}{mtu}, addresses: [{address}/30], routes: [{route}/24]}}"
                );
            }
        }
        Case::Routes(count) => {
            line!(text, "routes:");
            for route in routes(count, step) {
                line!(
                    text,
                    "  - {{to: {}/32, via: {}, device: eth0}}",
                    route.to,
                    route.via
                );
            }
        }
    }
    text
}

/// What a script would hold: `ip` itself doesn't know what is there already. Its no-op is to show it all.
fn batch(case: Case, step: Step) -> String {
    let mut text = String::new();
    match (case, step) {
        (_, Step::NoOp) => text += "link show\naddr show\nroute show\n",
        (Case::Tunnels(count), Step::Create) => {
            for t in tunnels(count, step) {
                let (number, remote, mtu) = (t.number, t.remote, t.mtu);
                line!(
                    text,
                    "link add t{number} mtu {mtu} up type ipip local {LOCAL} remote {remote}"
                );
            }
            for t in tunnels(count, step) {
                line!(text, "addr add {}/30 dev t{}", t.address, t.number);
            }
            for t in tunnels(count, step) {
                line!(text, "route add {}/24 dev t{}", t.route, t.number);
            }
        }
        (Case::Tunnels(count), Step::ChangeOne | Step::ChangeTenth) => {
            for t in tunnels(count, step).filter(|t| step.changes(t.number)) {
                line!(text, "link set t{} mtu {}", t.number, t.mtu);
            }
        }
        (Case::Tunnels(count), Step::Delete) => {
            for number in 0..count {
                line!(text, "link del t{number}");
            }
        }
        (Case::Routes(count), Step::Create) => {
            for route in routes(count, step) {
                line!(text, "route add {} via {} dev eth0", route.to, route.via);
            }
        }
        (Case::Routes(count), Step::ChangeOne | Step::ChangeTenth) => {
            for route in routes(count, step).filter(|route| step.changes(route.number)) {
                line!(
                    text,
                    "route replace {} via {} dev eth0",
                    route.to,
                    route.via
                );
            }
        }
        (Case::Routes(count), Step::Delete) => {
            for route in routes(count, step) {
                line!(text, "route del {}", route.to);
            }
        }
    }
    text
}

/// ifstate takes whatever it isn't told to ignore for its own.
fn ifstate(case: Case, step: Step) -> String {
    let mut interfaces = String::from("interfaces:");
    let mut table = String::from("routing:\n  routes:");
    match case {
        _ if step == Step::Delete => {}
        Case::Tunnels(count) => {
            for t in tunnels(count, step) {
                let (number, remote, mtu, address) = (t.number, t.remote, t.mtu, t.address);
                let _ = write!(
                    interfaces,
                    "\n  t{number}:\n    addresses: [{address}/30]\n    link: {{kind: ipip, state: up, mtu: {mtu}, ipip_local: {LOCAL}, ipip_remote: {remote}}}"
                );
                let _ = write!(table, "\n    - {{to: {}/24, dev: t{number}}}", t.route);
            }
        }
        Case::Routes(count) => {
            for route in routes(count, step) {
                let (to, via) = (route.to, route.via);
                let _ = write!(table, "\n    - {{to: {to}/32, via: {via}, dev: eth0}}");
            }
        }
    }
    if interfaces.ends_with(':') {
        interfaces += " {}";
    }
    if table.ends_with(':') {
        table += " []";
    }
    let gateway = GATEWAYS[0];
    format!(
        "{interfaces}\n{table}\nparameters:\n  ignore:\n    ifname: ['^eth0$', '^lo$', '^tunl0$']\n    \
         routes: [{{to: 0.0.0.0/0, via: {gateway}}}]\n"
    )
}

/// ifdown reads what there was.
fn interfaces(case: Case, step: Step) -> String {
    let mut text = String::new();
    if let Case::Tunnels(count) = case {
        for t in tunnels(count, step) {
            let (number, remote, mtu) = (t.number, t.remote, t.mtu);
            let (address, route) = (t.address, t.route);
            line!(
                text,
                "auto t{number}\niface t{number}\n    tunnel-mode ipip\n    tunnel-local {LOCAL}\n    \
                 tunnel-endpoint {remote}\n    mtu {mtu}\n    address {address}/30\n    \
                 post-up ip route replace {route}/24 dev t{number}"
            );
        }
    }
    text
}
