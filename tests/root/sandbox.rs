//! What commands see and how they end.

use debforge::sandbox::{Command, Exit, Input, Isolation, Sandbox, Stream, View};

fn host(argv: &[&str]) -> Command {
    debforge::sandbox::use_program(env!("CARGO_BIN_EXE_debforge"));
    Command {
        argv: argv.iter().map(|word| (*word).to_owned()).collect(),
        environment: [("PATH".to_owned(), "/usr/sbin:/usr/bin:/sbin:/bin".to_owned())].into(),
        directory: None,
        view: View::Host { root: None, writable: Vec::new() },
        binds: Vec::new(),
        network: false,
        input: Input::Null,
    }
}

fn run(command: &Command) -> anyhow::Result<(Exit, String)> {
    let mut out = String::new();
    let exit = Sandbox::new(Isolation::Namespaces).run(command, &mut |stream, line| {
        if stream == Stream::Err {
            out.push_str("err: ");
        }
        out.push_str(line);
        out.push('\n');
    })?;
    Ok((exit, out))
}

#[test]
fn a_command_of_the_host_runs() -> anyhow::Result<()> {
    let (exit, out) =
        run(&host(&["sh", "-c", "id; hostname; ls /dev /tmp; ps ax; ip a; cat /proc/self/mountinfo; exit 3"]))?;
    assert_eq!(exit, Exit::Code(3));
    assert!(out.contains("debforge"), "{out}");
    Ok(())
}
