//! The inside of a machine: debforge as its first process, which sets up what the engine needs, has it
//! carry out the plan, and switches the machine off.

mod channel;
mod mounts;
mod setup;

pub(super) use channel::INTERRUPT;

use std::path::Path;
use std::time::SystemTime;

use anyhow::{Context, Result};
use nix::sys::reboot::{RebootMode, reboot};

use self::channel::Channel;
use super::orders::Orders;
use crate::diagnostics::fault_of;
use crate::machine::local::Identity;
use crate::machine::process::{self, Job, Message};
use crate::sandbox::Isolation;
use crate::say;
use crate::store::Store;

/// Name of the subcommand.
pub(in crate::machine) const NAME: &str = "__guest";

/// The hidden subcommand `__guest ORDERS`. Does not come back where it is the first process.
pub fn main(orders: &Path) -> i32 {
    if !nix::unistd::getpid().as_raw().eq(&1) {
        say!("debforge: `__guest` is for the first process of a machine");
        return 70;
    }
    if let Err(error) = run(orders) {
        // Without a channel the console is all there is; what watches it shows its last lines.
        say!("debforge: {error:#}");
    }
    nix::unistd::sync();
    let _ = reboot(RebootMode::RB_POWER_OFF);
    70
}

fn run(path: &Path) -> Result<()> {
    setup::console();
    let orders = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let orders: Orders = serde_json::from_slice(&orders).context("understanding the orders")?;
    setup::modules(&orders.modules)?;
    for device in orders.root.iter().chain([&orders.disk]) {
        setup::device(device)?;
    }
    mounts::root(&orders)?;
    setup::device(&orders.channel)?;
    let channel = Channel::open(&orders.channel)?;
    let done = work(&orders, &channel);
    let unmounted = mounts::away(&orders.store);
    // What was shared is written by now too.
    nix::unistd::sync();
    let fault = done.and(unmounted).err().map(|error| fault_of(&error));
    channel.say(&Message::Done(fault));
    channel.drain();
    Ok(())
}

fn work(orders: &Orders, channel: &Channel) -> Result<()> {
    setup::device(&orders.terminal)?;
    setup::terminal(&orders.terminal, orders.window);
    setup::network(orders.interface.as_deref())?;
    if let Some((architecture, emulator)) = &orders.emulator {
        crate::sandbox::binfmt::register_for_all(*architecture, emulator)?;
    }
    setup::environment(&orders.environment);
    channel.say(&Message::Alive);
    let began = SystemTime::now();
    let _pulse = channel.listen(process::interrupt_engine);
    process::run(&Identity::Root, Isolation::Namespaces, &Job::Serve(orders.job.clone()), &mut |message| {
        channel.say(&message);
    })?;
    report(&orders.store, began, channel)
}

/// Says what the store has come to hold, for those who plan the next build.
fn report(store: &Path, began: SystemTime, channel: &Channel) -> Result<()> {
    let store = Store::open(store)?;
    channel.say(&Message::Facts(store.facts_since(began)));
    channel.say(&Message::Contents(store.contents()?));
    Ok(())
}
