//! What is generated from the code, as paths below the top of the sources and texts.

use std::path::PathBuf;

use clap::Command;
use debforge::actions::KINDS;
use debforge::cli::{self, completions, manual};

/// First line of generated Markdown.
const NOTE: &str = "<!-- generated from the code; `./x generate` refreshes it -->\n\n";

/// All of them.
pub fn files() -> Vec<(PathBuf, String)> {
    let mut files = action_pages();
    let command = cli::command();
    files.push(("docs/src/command-line.md".into(), command_line_page(&command)));
    files.push(("contrib/recipe.schema.json".into(), cli::schema::text().expect("a schema is JSON")));
    files.extend(man_pages(&command));
    files.push(man_page(cli::debos::command(), cli::debos::NAME.into()));
    for command in [command, cli::debos::command()] {
        files.extend(shell_completions(&command));
    }
    files
}

fn action_pages() -> Vec<(PathBuf, String)> {
    let mut index = format!("{NOTE}# Actions\n\nA recipe is a list of these, done from top to bottom:\n\n");
    let mut files = Vec::new();
    for kind in KINDS {
        let manual = manual::manual(kind);
        index.push_str(&format!("- [`{0}`]({0}.md): {1}\n", manual.name, manual.summary));
        files.push((format!("docs/src/actions/{}.md", manual.name).into(), format!("{NOTE}{}", manual.markdown())));
    }
    index.push_str("\n`debforge actions NAME` shows the same in the terminal.\n");
    files.push(("docs/src/actions/README.md".into(), index));
    files
}

fn command_line_page(command: &Command) -> String {
    let mut page = format!("{NOTE}# Command line\n\n");
    help_block(command.clone().bin_name("debforge"), &mut page);
    for sub in visible(command) {
        page.push_str(&format!("## debforge {}\n\n", sub.get_name()));
        help_block(sub.clone().bin_name(format!("debforge {}", sub.get_name())), &mut page);
        for nested in visible(sub) {
            let name = format!("debforge {} {}", sub.get_name(), nested.get_name());
            page.push_str(&format!("### {name}\n\n"));
            help_block(nested.clone().bin_name(name), &mut page);
        }
    }
    page.push_str(
        "## debos\n\nCalled by the name `debos` (a link to it), the program takes the arguments of debos:\n\n",
    );
    help_block(cli::debos::command().bin_name(cli::debos::NAME), &mut page);
    page.trim_end().to_owned() + "\n"
}

fn help_block(command: Command, page: &mut String) {
    let mut command = command.term_width(90).styles(clap::builder::Styles::plain()).disable_help_subcommand(true);
    let help = command.render_long_help().to_string();
    let lines: Vec<&str> = help.lines().map(str::trim_end).collect();
    page.push_str(&format!("```text\n{}\n```\n\n", lines.join("\n").trim_end()));
}

fn man_pages(command: &Command) -> Vec<(PathBuf, String)> {
    let mut pages = vec![man_page(command.clone(), "debforge".into())];
    for sub in visible(command) {
        pages.push(man_page(sub.clone(), format!("debforge-{}", sub.get_name())));
    }
    pages
}

fn man_page(command: Command, name: String) -> (PathBuf, String) {
    let path = format!("contrib/man/{name}.1").into();
    // clap keeps names for the program's whole life.
    let command = command.name(&*name.clone().leak()).bin_name(name.replacen("-", " ", 1));
    let mut page = Vec::new();
    // Writing to memory does not fail.
    let written = clap_mangen::Man::new(command).manual("debforge").render(&mut page);
    assert!(written.is_ok(), "a manual page is written to memory");
    (path, String::from_utf8_lossy(&page).into_owned())
}

fn shell_completions(command: &Command) -> Vec<(PathBuf, String)> {
    use clap_complete::Shell;
    let name = command.get_name();
    [(Shell::Bash, format!("{name}.bash")), (Shell::Zsh, format!("_{name}")), (Shell::Fish, format!("{name}.fish"))]
        .map(|(shell, name)| {
            (PathBuf::from("contrib/completions").join(name), completions::script(shell, command.clone()))
        })
        .into()
}

fn visible(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help")
}
