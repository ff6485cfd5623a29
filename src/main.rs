//! The command `tunnelform`.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
