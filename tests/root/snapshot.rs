//! `snapshot:` of the bootstraps against a server that keeps a past state, and the dates that follow.

use std::fs;
use std::io::Read;
use std::path::Path;

use crate::harness::Project;
use crate::harness::http::Server;
use crate::harness::repository::{Deb, Repository};

const STAMP: &str = "20200901T000000Z";
/// When the past state was made, in the words of its Release file and in seconds since 1970.
const THEN: (&str, u64) = ("Tue, 01 Sep 2020 00:00:00 UTC", 1_598_918_400);
const EXPIRY: &str = "Valid-Until: Tue, 08 Sep 2020 00:00:00 UTC";

/// A project, and a server with a repository at `debian` and its past state in the archive. Both have expired.
fn site() -> (Project, Server) {
    let project = Project::new();
    let site = project.path("site");
    for (dir, text) in [("debian", "now\n"), (&format!("archive/debian/{STAMP}"), "then\n")] {
        let repository =
            Repository::new(&site.join(dir), "stable").with(Deb::new("one", "1.0").file("usr/share/one", 0o644, text));
        repository.publish(&format!("{}\n{EXPIRY}", THEN.0));
        project.write(&format!("{text}.gpg").replace('\n', ""), repository.keyring());
    }
    let server = Server::new(&site);
    (project, server)
}

/// The only package and its text, the list of sources, and the date of the host's name.
fn contents(archive: &Path) -> (String, String, u64) {
    let (mut one, mut sources, mut date) = (String::new(), String::new(), 0);
    let file = fs::File::open(archive).expect("the packed root");
    for entry in tar::Archive::new(file).entries().expect("an archive") {
        let mut entry = entry.expect("an entry");
        let path = entry.path().expect("a path").display().to_string();
        match path.trim_start_matches("./") {
            "usr/share/one" => drop(entry.read_to_string(&mut one).expect("a text")),
            "etc/apt/sources.list" => drop(entry.read_to_string(&mut sources).expect("a text")),
            "etc/hostname" => date = entry.header().mtime().expect("a date"),
            _ => {}
        }
    }
    (one, sources, date)
}

fn mmdebstrap(server: &Server, keyring: &str, more: &str) -> String {
    format!(
        "architecture: amd64\nactions:\n  - action: mmdebstrap\n    suite: stable\n    variant: extract\n    include: [one]\n    mirrors: ['{}']\n    keyring-files: [{keyring}.gpg]\n{more}  - action: pack\n    file: out.tar\n    compression: none\n",
        server.url("debian")
    )
}

#[test]
fn mmdebstrap_takes_a_past_state_though_it_has_expired() {
    needs_program!("gpg", "gnupg");
    needs_program!("apt-get", "apt");
    let (project, server) = site();
    let at_moment = mmdebstrap(&server, "then", &format!("    snapshot: {STAMP}\n"));
    project.write("recipe.yaml", &at_moment);
    project.build([]).success();
    let (one, sources, date) = contents(&project.path("out/out.tar"));
    assert_eq!(one, "then\n");
    let address = server.url(&format!("archive/debian/{STAMP}"));
    assert_eq!(sources, format!("deb [check-valid-until=no] {address} stable main\n"));
    assert_eq!(date, THEN.1, "what is written is as old as the repository");
    let elsewhere: Vec<_> =
        server.seen().into_iter().filter(|seen| !seen.path.starts_with("archive/debian/")).collect();
    assert!(elsewhere.is_empty(), "{elsewhere:?}");

    let mut command = project.command(["build", "recipe.yaml", "--artifactdir", "out"]);
    let output = command.env("SOURCE_DATE_EPOCH", "1500000000").output().expect("starting debforge");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(contents(&project.path("out/out.tar")).2, 1_500_000_000, "unless another date is given");

    project.write("recipe.yaml", mmdebstrap(&server, "now", ""));
    project.build([]).code(1).says("has expired on 2020-09-08");
    project.write("recipe.yaml", at_moment.replace(STAMP, "20200902T000000Z"));
    project.build([]).code(1).says("could not get the Release file of").says("404");
}

#[test]
fn debootstrap_takes_a_past_state_though_it_has_expired() {
    needs_program!("gpg", "gnupg");
    needs_program!("debootstrap", "debootstrap");
    let (project, server) = site();
    let recipe = |keyring: &str, more: &str| {
        let mirror = server.url("debian");
        project.write(
            "recipe.yaml",
            format!(
                "architecture: amd64\nactions:\n  - action: debootstrap\n    suite: stable\n    mirror: '{mirror}'\n    keyring-file: {keyring}.gpg\n{more}"
            ),
        );
    };
    recipe("then", &format!("    snapshot: {STAMP}\n"));
    let planned = project.run(["plan", "recipe.yaml", "--json"]).success();
    let plan: serde_json::Value = serde_json::from_str(&planned.stdout).expect("a plan");
    let states: Vec<_> = plan["releases"].as_object().expect("states of repositories").keys().cloned().collect();
    assert_eq!(states, [format!("{} stable", server.url(&format!("archive/debian/{STAMP}")))]);
    assert_eq!(plan["steps"][0]["epoch"], THEN.1);
    recipe("now", "");
    project.run(["plan", "recipe.yaml"]).code(1).says("has expired on 2020-09-08");
}
