//! `tunnelform watch`.

use std::time::Duration;

use tunnelform::kernel::Kernel;
use tunnelform::source::Content;
use tunnelform::topology::{Host, Topology};
use tunnelform::watch::{Confirm, Listen, OnExit, Options, Origin, watch};

use super::input::{Input, Netns, NodeChoice};
use super::make::Within;
use super::{DONE, Failure, Result, require_privilege};

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  tunnelform watch /etc/tunnelform/hq.yaml\n  tunnelform watch --resync 1m --log-format json \
                        /etc/tunnelform\n  tunnelform watch --listen 127.0.0.1:9117 /etc/tunnelform/hq.yaml\n  tunnelform watch --confirm-by-probe /etc/tunnelform\n\nExit codes: 0 ended by a signal, 1 error."
)]
pub(super) struct Watch {
    #[command(flatten)]
    input: Input,
    #[command(flatten)]
    node: NodeChoice,
    #[command(flatten)]
    netns: Netns,
    /// How often to look although nothing was told, such as 5m.
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = duration)]
    resync: Duration,
    /// How long the file must be left alone before it is read.
    #[arg(long, value_name = "TIME", default_value = "200ms", value_parser = duration)]
    debounce: Duration,
    /// Seconds for which another run in the same namespace may be at work before it is worth a warning.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    lock_timeout: u64,
    /// Take over tunnels, addresses and routes that exist without our mark.
    #[arg(long)]
    adopt: bool,
    /// Let a topology that holds nothing delete everything that is ours.
    #[arg(long)]
    allow_empty: bool,
    /// What becomes of the network at the end.
    #[arg(long, value_enum, default_value_t)]
    on_exit: AtEnd,
    /// Put each new topology on trial: unless `tunnelform confirm` comes within that time (1s to 1day, such as `60s`), the
    /// last good one is in force again.
    ///
    /// A daemon that is killed meanwhile goes back when it starts again, and one that is told to stop before it ends. A
    /// topology that was taken back isn't tried again until the file changes, or SIGHUP. The first one after the start has
    /// nothing to go back to, and is kept.
    #[arg(long, value_name = "TIME")]
    confirm_within: Option<Within>,
    /// Let the peers confirm it: each that answered before and that is still probed has to answer again within the time of
    /// --confirm-within, or 60s. Where none did, it's kept.
    #[arg(long)]
    confirm_by_probe: bool,
    /// Answer over HTTP here: metrics, health, status, and a page for browsers.
    ///
    /// An address with a port, such as 127.0.0.1:9117, or unix:/run/tunnelform/watch.sock. At /metrics is what Prometheus
    /// reads, at /healthz and /readyz what health checks read, at /status a JSON document (`tunnelform schema
    /// watch-status`), at / a page. The address is one of the namespace that the daemon is started in, whatever --netns
    /// says.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<Listen>,
    /// Let --listen take an address that other hosts reach. Nobody is asked for a password.
    #[arg(long, requires = "listen")]
    listen_anywhere: bool,
    /// Form of the log on standard error.
    #[arg(long, value_enum, default_value_t)]
    pub(super) log_format: LogFormat,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum AtEnd {
    /// It stays as it is.
    #[default]
    Leave,
    /// What the topology owns is taken away.
    Destroy,
}

/// The form of the log.
#[derive(Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines: an object a line.
    Json,
}

/// The longest time that can be asked for.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

fn duration(text: &str) -> std::result::Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => Err("it must be more than nothing".into()),
        // A clock can't count further than some point.
        Ok(duration) if duration > LONGEST => Err("it must be a year at most".into()),
        Ok(duration) => Ok(duration),
        Err(error) => Err(format!("{error}; write it as 300ms, 10s or 5m")),
    }
}

/// For how long the peers' answers are waited for where nobody says it.
const UNTIL_ANSWERED: Duration = Duration::from_secs(60);

fn confirm(within: Option<Within>, by_probe: bool) -> Option<Confirm> {
    let within = within.map(|Within(within)| within);
    let within = within.or(by_probe.then_some(UNTIL_ANSWERED))?;
    Some(Confirm { within, by_probe })
}

impl Watch {
    pub(super) fn run(self) -> Result {
        if self.input.is_stdin() {
            return Err(Failure(
                "standard input can't be followed: name a file".into(),
            ));
        }
        if let Some(listen) = &self.listen
            && listen.is_open_to_others()
            && !self.listen_anywhere
        {
            return Err(Failure(format!(
                "--listen {listen}: other hosts could read the topology there: choose a loopback address such as \
                 127.0.0.1:9117, or add --listen-anywhere"
            )));
        }
        require_privilege()?;
        let options = Options {
            path: self.input.file.clone(),
            netns: self.netns.netns,
            resync: self.resync,
            debounce: self.debounce,
            lock_timeout: Duration::from_secs(self.lock_timeout),
            adopt: self.adopt,
            allow_empty: self.allow_empty,
            on_exit: match self.on_exit {
                AtEnd::Leave => OnExit::Leave,
                AtEnd::Destroy => OnExit::Destroy,
            },
            listen: self.listen,
            confirm: confirm(self.confirm_within, self.confirm_by_probe),
        };
        let file = File {
            input: self.input,
            node: self.node,
        };
        watch(&options, file)?;
        Ok(DONE)
    }
}

struct File {
    input: Input,
    node: NodeChoice,
}

impl Origin for File {
    fn name(&self) -> String {
        self.input.name()
    }

    fn read(&self) -> std::result::Result<Vec<Content>, String> {
        self.input.read().map_err(|Failure(message)| message)
    }

    fn host(&self, topology: &Topology, kernel: &mut Kernel) -> std::result::Result<Host, String> {
        let host = self.node.host(topology, kernel);
        host.map_err(|Failure(message)| message)
    }
}
