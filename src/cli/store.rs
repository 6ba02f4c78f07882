//! `debforge store`: what the store holds, and making room in it.

use std::io::IsTerminal;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use serde_json::json;

use super::StoreArgs;
use super::output::{print, width};
use crate::build::Event;
use crate::diagnostics::Fault;
use crate::engine::Job;
use crate::machine::local::{self, Identity, Local};
use crate::store::size::{human, parse};
use crate::store::{Cleared, Damaged, Kind, Listed, Store, Surplus};

/// Show or reduce what is kept for later builds
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    store: StoreArgs,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum Command {
    /// Show how much the store holds of each kind, and its bound
    Size {
        /// Keep the store to this size from now on, such as 40G
        #[arg(long, value_name = "SIZE")]
        set: Option<String>,
    },
    /// List the entries, most recently used first
    List {
        /// Only those of a kind: tree, output, download, package, state, partial or machine
        #[arg(long, value_name = "KIND")]
        kind: Option<String>,
    },
    /// Look at every byte, and remove what is not as it was kept
    Verify,
    /// Remove what was used least recently, down to a size (the bound, without arguments) or an age
    Prune {
        /// Leave at most so much, such as 5G
        #[arg(long, value_name = "SIZE", conflicts_with = "older_than")]
        to: Option<String>,
        /// Remove what was not used for so long, such as 30d, 12h or 2w
        #[arg(long, value_name = "AGE")]
        older_than: Option<String>,
    },
    /// Remove everything that no running build uses
    Clear {
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

/// Runs it.
pub fn run(args: &Args) -> Result<()> {
    let store = args.store.open()?;
    match &args.command {
        Command::Size { set } => {
            if let Some(text) = set {
                store.set_bound(parse(text)?)?;
            }
            size(&store, args.json)
        }
        Command::List { kind } => list(&store, kind.as_deref(), args.json),
        Command::Verify => verify(&store, args.json),
        Command::Prune { to, older_than } => {
            let surplus = match older_than {
                Some(age) => Surplus::Older(parse_age(age)?),
                None => Surplus::Beyond(to.as_deref().map(parse).transpose()?),
            };
            print(&told(remove(&store, surplus)?, args.json))
        }
        Command::Clear { yes } => match *yes || confirmed(&store)? {
            true => print(&told(remove(&store, Surplus::All)?, args.json)),
            false => Ok(()),
        },
    }
}

/// Removes entries as whoever made them: an ordinary user's layers belong to ids of the user's
/// namespace.
fn remove(store: &Store, surplus: Surplus) -> Result<Cleared> {
    let Some(local) = foreign_owner(store) else { return store.remove(surplus) };
    let job = Job::Remove { store: store.root().to_owned(), surplus };
    as_owner(&local, &job, |event| match event {
        Event::Cleared { cleared } => Some(cleared),
        _ => None,
    })
}

/// Who owns the layers, where that is not simply who runs this.
fn foreign_owner(store: &Store) -> Option<Local> {
    local::probe(store.root()).ok().filter(|local| local.identity != Identity::Root)
}

/// Has the engine do a job; `answer` picks what it says of it.
fn as_owner<T>(local: &Local, job: &Job, answer: impl Fn(Event) -> Option<T>) -> Result<T> {
    let (mut answered, mut failed) = (None, None);
    local::start(local, &serde_json::to_value(job)?, &mut |event| match event {
        Event::Finished { fault, .. } => failed = fault,
        event => answered = answer(event).or(answered.take()),
    })?;
    match failed {
        Some(fault) => Err(fault.into()),
        None => answered.context("the engine did not say what came of it"),
    }
}

/// Looks at everything, as whoever made it.
fn verify(store: &Store, as_json: bool) -> Result<()> {
    let verified = match foreign_owner(store) {
        None => store.verify()?,
        Some(local) => as_owner(&local, &Job::Verify { store: store.root().to_owned() }, |event| match event {
            Event::Verified { verified } => Some(verified),
            _ => None,
        })?,
    };
    if as_json {
        print(&format!("{:#}\n", json!(verified)))?;
    } else {
        let mut text = String::new();
        for Damaged { kind, id, detail, why, removed } in &verified.damaged {
            let id: String = id.chars().take(12).collect();
            let done = if *removed { "removed" } else { "kept" };
            let detail = if detail.is_empty() { String::new() } else { format!(" ({detail})") };
            text.push_str(&format!("{id:<12}  {:<9}{done}: {why}{detail}\n", word(*kind)));
        }
        let whole = if verified.whole == 1 { "entry is" } else { "entries are" };
        text.push_str(&format!("{} {whole} as they were kept, {}\n", verified.whole, human(verified.bytes)));
        print(&text)?;
    }
    match verified.damaged.len() {
        0 => Ok(()),
        count => {
            let entries = if count == 1 { "entry was" } else { "entries were" };
            let message = format!("{count} {entries} damaged");
            Err(Fault::failed(message)
                .hint("builds make again what was removed; a disk that damages files will go on")
                .into())
        }
    }
}

/// Asks in a terminal; elsewhere nobody could answer, and calling it is meant.
fn confirmed(store: &Store) -> Result<bool> {
    let term = console::Term::stderr();
    if !(std::io::stdin().is_terminal() && term.is_term()) {
        return Ok(true);
    }
    term.write_str(&format!("remove all that is in {}? [y/N] ", store.root().display()))?;
    Ok(matches!(term.read_line()?.trim(), "y" | "Y" | "yes"))
}

fn size(store: &Store, as_json: bool) -> Result<()> {
    let entries = store.entries()?;
    let total: u64 = entries.iter().map(|entry| entry.size).sum();
    let bound = store.bound(total)?;
    let kinds = Kind::ALL.map(|kind| {
        let sizes: Vec<u64> = entries.iter().filter(|entry| entry.kind == kind).map(|entry| entry.size).collect();
        (kind, sizes.len(), sizes.iter().sum::<u64>())
    });
    if as_json {
        let kinds: serde_json::Map<_, _> = kinds
            .into_iter()
            .map(|(kind, entries, size)| (kind.plural().to_owned(), json!({"entries": entries, "size": size})))
            .collect();
        let value = json!({"path": store.root(), "size": total, "bound": bound, "kinds": kinds});
        return print(&format!("{value:#}\n"));
    }
    let mut text = String::new();
    for (kind, entries, size) in kinds.into_iter().filter(|(_, entries, _)| *entries > 0) {
        text.push_str(&format!("  {:<12}{entries:>6}  {:>8}\n", kind.plural(), human(size)));
    }
    text.push_str(&format!("{} of {} in {}\n", human(total), human(bound), store.root().display()));
    print(&text)
}

fn list(store: &Store, kind: Option<&str>, as_json: bool) -> Result<()> {
    let kind = kind.map(parse_kind).transpose()?;
    let mut entries: Vec<Listed> = store.entries()?;
    entries.retain(|entry| kind.is_none_or(|kind| entry.kind == kind));
    entries.sort_by_key(|entry| std::cmp::Reverse(entry.used));
    let names = store.fetched_names();
    for entry in entries.iter_mut().filter(|entry| entry.detail.is_empty()) {
        entry.detail.clone_from(names.get(&entry.id).unwrap_or(&String::new()));
    }
    if as_json {
        return print(&format!("{:#}\n", serde_json::to_value(&entries)?));
    }
    let now = SystemTime::now();
    let mut text = String::new();
    for entry in &entries {
        let age = ago(now.duration_since(entry.used).unwrap_or_default());
        let id: String = entry.id.chars().take(12).collect();
        let recipe = Path::new(&entry.recipe).file_name().unwrap_or_default().to_string_lossy();
        let made: Vec<&str> =
            [&*recipe, &entry.step, &entry.detail].into_iter().filter(|part| !part.is_empty()).collect();
        let line = format!("{id:<12}  {:<9}{:>8}  {age:>7}  {}", word(entry.kind), human(entry.size), made.join(" · "));
        text.push_str(console::truncate_str(line.trim_end(), width(), "…").as_ref());
        text.push('\n');
    }
    print(&text)
}

fn told(cleared: Cleared, as_json: bool) -> String {
    if as_json {
        return format!("{:#}\n", json!(cleared));
    }
    let entries = if cleared.entries == 1 { "entry" } else { "entries" };
    let mut text = format!("removed {} {entries}, {}", cleared.entries, human(cleared.bytes));
    if cleared.in_use > 0 {
        text.push_str(&format!("; {} in use", cleared.in_use));
    }
    format!("{text}; {} left\n", human(cleared.left))
}

fn word(kind: Kind) -> String {
    // Its name in JSON, so that `--kind` takes what is shown.
    serde_json::to_value(kind).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

fn parse_kind(text: &str) -> Result<Kind> {
    let found = Kind::ALL.into_iter().find(|kind| word(*kind) == text || kind.plural() == text);
    found.ok_or_else(|| {
        let kinds = Kind::ALL.map(word).join(", ");
        Fault::recipe(format!("the store has no kind `{text}`")).hint(format!("there are {kinds}")).into()
    })
}

/// Reads "30d", "12h", "2w", "90min".
fn parse_age(text: &str) -> Result<Duration> {
    let wrong = || Fault::recipe(format!("`{text}` is not an age")).hint("write it like 30d, 12h, 2w or 90min");
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..end].parse().map_err(|_| wrong())?;
    let unit = match text[end..].trim() {
        "s" => 1,
        "min" | "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        "w" => 7 * 86_400,
        _ => return Err(wrong().into()),
    };
    Ok(Duration::from_secs(number.checked_mul(unit).ok_or_else(wrong)?))
}

/// "3 min": the largest unit that fits.
fn ago(age: Duration) -> String {
    let seconds = age.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_read_as_they_are_written() {
        for (text, seconds) in [("30d", 2_592_000), ("12h", 43_200), ("2w", 1_209_600), ("90min", 5400), ("5 s", 5)] {
            assert_eq!(parse_age(text).unwrap().as_secs(), seconds, "{text}");
        }
        for text in ["", "d", "5", "1y", "-1d", "99999999999999999999w", "9999999999999999999w"] {
            assert!(parse_age(text).is_err(), "{text}");
        }
    }

    #[test]
    fn every_kind_is_found_by_the_name_that_is_shown() {
        for kind in Kind::ALL {
            assert_eq!(parse_kind(&word(kind)).unwrap(), kind);
        }
        assert!(parse_kind("tee").is_err());
    }
}
