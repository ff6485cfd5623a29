//! The command line: arguments, exit codes, what goes to which stream. One file a subcommand.

mod apply;
mod carry_out;
mod confirm;
mod diff;
mod doctor;
mod export;
mod generate;
mod graph;
mod input;
mod make;
mod markdown;
mod offline;
mod operator;
mod outcome;
mod probe;
mod render;
mod save;
mod show;
mod status;
mod validate;
mod watch;

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use tunnelform::kernel::Kernel;
use tunnelform::lock::Daemon;
use tunnelform::plan::Style;
use tunnelform::topology::Owner;

/// Nothing went wrong.
const DONE: u8 = 0;
/// Something did.
const FAILED: u8 = 1;
/// `--detailed-exitcode`: there are changes. Also what clap says of wrong arguments.
const CHANGES: u8 = 2;
/// Something went wrong, and so did taking back what was done before.
const HALF_DONE: u8 = 3;

/// Bytes, as many as a pipe takes at once.
const OUTPUT_BUFFER: usize = 64 << 10;

/// Of memory that is free, bytes. Single pieces of a quarter of it are given back all the same.
#[cfg(target_env = "gnu")]
const KEPT_BYTES: i32 = 4 << 20;

/// Makes a host's IPIP tunnels, addresses and routes match a YAML file.
#[derive(Parser)]
#[command(name = "tunnelform", version, arg_required_else_help = true, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Colour the output.
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN")]
    color: Color,
    /// Log what is done to standard error.
    #[arg(long, short, global = true)]
    verbose: bool,
}

const EXAMPLES: &str = "\
Examples:
  tunnelform validate hq.yaml         check a file, on any machine
  tunnelform apply --dry-run hq.yaml  show what would change
  tunnelform apply hq.yaml            change it
  tunnelform status hq.yaml           show how it stands
  tunnelform probe hq.yaml            ask the peers whether they are there
  tunnelform watch hq.yaml            keep it so, as a daemon
  tunnelform destroy hq.yaml          take it all away again
  tunnelform apply plan.json          carry out the plan that `apply --dry-run --out` has saved
  tunnelform diff old.yaml new.yaml   show what a change of the file changes on each node
  tunnelform graph fleet.yaml         draw it

Exit codes: 0 done, 1 error, 2 wrong arguments (with --detailed-exitcode: changes; probe: a peer
doesn't answer).";

#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Color {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    Always,
    Never,
}

/// The form of the output.
#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    #[default]
    Text,
    /// For machines: one document.
    Json,
}

// A run has one, and builds that one's arguments alone.
#[derive(Subcommand)]
#[command(defer = true)]
enum Command {
    /// Check topologies, each by itself. Needs no root and asks no kernel.
    Validate(validate::Validate),
    /// Make the host as the topology says, or carry out a saved plan.
    ///
    /// A saved plan is carried out as it is, or not at all: on a host that is no longer as it was when the plan was made, it's
    /// refused, and what differs is named.
    Apply(apply::Apply),
    /// Take away what a topology owns, and nothing else.
    Destroy(apply::Destroy),
    /// Keep the change that `apply --confirm-within` or `watch --confirm-within` has made.
    Confirm(confirm::Confirm),
    /// Take back the change that `apply --confirm-within` or `watch --confirm-within` has made, without waiting.
    Rollback(confirm::Rollback),
    /// Wait until the change is confirmed, or take it back. `apply --confirm-within` runs it.
    #[command(hide = true)]
    Guard(confirm::Guard),
    /// Take back what a run has done that is killed. `apply` runs it.
    #[command(hide = true)]
    Inherit(confirm::Inherit),
    /// Show how each tunnel of a topology stands, and what a daemon knows of the peers. Needs no root.
    Status(status::Status),
    /// Send echoes through each tunnel to the host at its other end.
    ///
    /// The echoes go to the peer's overlay address: the tunnel's own `probe: {target: ADDRESS}`, the other end of a point-to-point
    /// address, the other host of a /30 or /31, or what the fleet knows. The largest packet that passes is looked for as
    /// well, and compared with the tunnel's MTU. Needs CAP_NET_RAW.
    Probe(probe::Probe),
    /// Keep the host as the topology says: follow the file and the kernel until a signal ends it.
    ///
    /// Tunnels for which the topology says `probe:` are probed all the time, which needs CAP_NET_RAW; with `withdraw_routes`
    /// a dead peer's routes are taken out until it answers again.
    ///
    /// SIGHUP reads the file and makes a pass at once; SIGTERM and SIGINT end it and leave the network as it is.
    Watch(watch::Watch),
    /// Check whether this host can run IPIP tunnels, and what could disturb them. Needs no root.
    Doctor(doctor::Doctor),
    /// Show what a change of the file changes on each node. Needs no root, no kernel and no host.
    ///
    /// It compares what the two files want. What else a host has, and what has drifted there, it can't know: `apply
    /// --dry-run` does.
    Diff(diff::Diff),
    /// Show a plan that `apply --dry-run --out` has saved.
    Show(show::Show),
    /// Print the single-host topology that a node gets: every mesh as tunnels, addresses and routes.
    Render(render::Render),
    /// Draw the topology: nodes in their underlay subnets, the tunnels or meshes that join them, overlay subnets.
    ///
    /// More than 300 nodes are drawn as their underlay subnets, with what each has counted.
    Graph(graph::Graph),
    /// Print what the kernel has: IPIP tunnels that nobody owns, with their addresses and routes, as a topology.
    ///
    /// `apply --adopt` takes them over as they are. What a topology has no words for is left out, and named on standard error.
    Export(export::Export),
    /// Print the JSON Schema of the topology format, or of a document that another command prints.
    Schema(generate::Schema),
    /// Print a completion script for a shell.
    Completions(generate::Completions),
    /// Print the manual page of the program, or of one of its commands.
    Man(generate::Man),
}

/// Where output goes, and how it looks.
struct Terminal {
    color: Color,
}

impl Terminal {
    /// The style of text on standard output.
    fn style(&self) -> Style {
        Style {
            color: self.colors(&io::stdout()),
        }
    }

    /// The style of text on standard error.
    fn error_style(&self) -> Style {
        Style {
            color: self.colors(&io::stderr()),
        }
    }

    fn colors(&self, stream: &impl IsTerminal) -> bool {
        match self.color {
            Color::Always => true,
            Color::Never => false,
            // https://no-color.org: set and not empty.
            Color::Auto => {
                stream.is_terminal()
                    && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            }
        }
    }
}

/// Why a command ends early: a message that is complete.
struct Failure(String);

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(source) = cause {
            let _ = write!(text, ": {source}");
            cause = source.source();
        }
        Self(text)
    }
}

type Result = std::result::Result<u8, Failure>;

pub(crate) fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if !matches!(arguments.command, Command::Watch(_)) {
        keep_memory();
    }
    log(&arguments);
    let terminal = Terminal {
        color: arguments.color,
    };
    let result = match arguments.command {
        Command::Validate(command) => command.run(&terminal),
        Command::Apply(command) => command.run(&terminal),
        Command::Destroy(command) => command.run(&terminal),
        Command::Confirm(command) => command.run(),
        Command::Rollback(command) => command.run(&terminal),
        Command::Guard(command) => command.run(),
        Command::Inherit(command) => command.run(),
        Command::Status(command) => command.run(&terminal),
        Command::Probe(command) => command.run(&terminal),
        Command::Watch(command) => command.run(),
        Command::Doctor(command) => command.run(&terminal),
        Command::Diff(command) => command.run(&terminal),
        Command::Show(command) => command.run(&terminal),
        Command::Render(command) => command.run(&terminal),
        Command::Graph(command) => command.run(&terminal),
        Command::Export(command) => command.run(&terminal),
        Command::Schema(command) => command.run(),
        Command::Completions(command) => command.run(Arguments::command()),
        Command::Man(command) => command.run(Arguments::command()),
    };
    ExitCode::from(result.unwrap_or_else(|Failure(message)| {
        complain(&terminal, &message);
        FAILED
    }))
}

/// What a command frees it mostly needs again at once, and the kernel hands out anew, page by page, what it got back. A
/// daemon, which stays, gives memory back.
fn keep_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt takes numbers, and no other thread allocates yet.
    unsafe {
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT_BYTES);
        libc::mallopt(libc::M_MMAP_THRESHOLD, KEPT_BYTES / 4);
    }
}

/// A daemon logs what it does; a command, which says it anyway, only how.
fn log(arguments: &Arguments) {
    let form = match &arguments.command {
        Command::Watch(command) => Some(command.log_format),
        _ => None,
    };
    let level = match (arguments.verbose, form) {
        (true, _) => tracing::Level::DEBUG,
        (false, Some(_)) => tracing::Level::INFO,
        (false, None) => return,
    };
    let log = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_target(false)
        .with_writer(io::stderr);
    match form {
        Some(watch::LogFormat::Json) => log.json().flatten_event(true).init(),
        Some(watch::LogFormat::Text) | None => {
            let terminal = Terminal {
                color: arguments.color,
            };
            log.with_ansi(terminal.error_style().color).init();
        }
    }
}

fn complain(terminal: &Terminal, message: &str) {
    say(terminal, anstyle::AnsiColor::Red, "error:", message);
}

fn warn(terminal: &Terminal, message: &str) {
    say(terminal, anstyle::AnsiColor::Yellow, "warning:", message);
}

fn note(terminal: &Terminal, message: &str) {
    say(terminal, anstyle::AnsiColor::Cyan, "note:", message);
}

fn say(terminal: &Terminal, color: anstyle::AnsiColor, sign: &str, message: &str) {
    let style = color.on_default().bold();
    let sign = if terminal.error_style().color {
        format!("{style}{sign}{style:#}")
    } else {
        sign.to_owned()
    };
    // Names of files and of other programs' devices may hold what drives a terminal.
    let message = message.replace(|c: char| c.is_control() && c != '\n', "\u{fffd}");
    // Nobody is left to tell when standard error is closed.
    let _ = writeln!(io::stderr(), "{sign} {message}");
}

/// Who works beside a daemon should know that it's there.
fn tell_of_daemon(kernel: &Kernel, owner: &Owner, terminal: &Terminal) -> Option<Daemon> {
    let daemon = Daemon::find(kernel.namespace(), owner)?;
    let text = format!(
        "`tunnelform watch` (process {}) follows {} here: {}",
        daemon.process, daemon.topology, daemon.standing
    );
    note(terminal, &text);
    Some(daemon)
}

fn print(text: &str) -> std::result::Result<(), Failure> {
    print_by(|stdout| stdout.write_all(text.as_bytes()))
}

/// Piece by piece: there may be a million changes.
fn print_json(value: &impl serde::Serialize) -> std::result::Result<(), Failure> {
    print_by(|stdout| {
        serde_json::to_writer_pretty(&mut *stdout, value)?;
        stdout.write_all(b"\n")
    })
}

/// Writes to standard output. A reader that has gone away (`| head`) is no failure.
fn print_by(
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> std::result::Result<(), Failure> {
    let mut stdout = io::BufWriter::with_capacity(OUTPUT_BUFFER, io::stdout().lock());
    match write(&mut stdout).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(Failure(format!("can't write to standard output: {error}"))),
        Ok(()) => Ok(()),
    }
}

/// Without the capability the kernel would refuse each change by itself.
fn require_privilege() -> std::result::Result<(), Failure> {
    use rustix::thread::{CapabilitySet, capabilities};
    match capabilities(None) {
        Ok(sets) if !sets.effective.contains(CapabilitySet::NET_ADMIN) => Err(Failure(
            "changing the network needs CAP_NET_ADMIN: run as root, or use --dry-run, which needs no privilege".into(),
        )),
        // Where it can't be asked, the kernel has the last word.
        Ok(_) | Err(_) => Ok(()),
    }
}
