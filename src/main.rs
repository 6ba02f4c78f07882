//! Arguments in, exit code out.

fn main() -> std::process::ExitCode {
    debforge::cli::main()
}
