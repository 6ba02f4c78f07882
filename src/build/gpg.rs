//! OpenPGP signatures by gpg, with a copy of the key in a directory that is gone afterwards: no agent of the user's,
//! no network, and nothing of the key in the log, the store or the root.

use std::path::PathBuf;

use anyhow::{Context, Result};

use super::BuildContext;
use super::command::Runner;

/// gpg's program, and Debian's package of it.
pub const GPG: (&str, &str) = ("gpg", "gpg");

/// Makes gpg's directory. Given the epoch, the key file (or nothing), gpg's own directory (or nothing), the key's id
/// (or nothing) and the passphrase file (or nothing); leaves `$newest`, the date of signatures: the epoch, or when
/// the key was made where that is later, since a signature that is older than its key counts for nothing.
///
/// /tmp is the command's own where mounts are possible; else the trap clears up.
pub const HOME: &str = r#"
umask 077
GNUPGHOME=$(mktemp -d)
export GNUPGHOME
trap 'gpgconf --kill all >/dev/null 2>&1 || :; rm -rf "$GNUPGHOME"' EXIT
epoch=$1 key=$2 home=$3 id=$4 passphrase=$5
shift 5
if [ -n "$key" ]; then
    gpg --batch --quiet ${passphrase:+--pinentry-mode loopback --passphrase-file "$passphrase"} --import "$key"
else
    for part in pubring.kbx pubring.gpg secring.gpg private-keys-v1.d trustdb.gpg; do
        if [ -e "$home/$part" ]; then cp -R "$home/$part" "$GNUPGHOME/"; fi
    done
fi
newest=$(gpg --batch --with-colons --list-secret-keys ${id:+"$id"} |
    awk -F: -v newest="$epoch" '($1 == "sec" || $1 == "ssb") && $6 > newest { newest = $6 } END { print newest }')
"#;

/// gpg is run by libostree, which knows no date and no passphrase: both come from its configuration.
const SIGNED_OSTREE: &str = r#"
printf 'faked-system-time %s!\nbatch\nno-tty\ntrust-model always\n' "$newest" >"$GNUPGHOME/gpg.conf"
if [ -n "$passphrase" ]; then
    printf 'pinentry-mode loopback\npassphrase-file %s\n' "$passphrase" >>"$GNUPGHOME/gpg.conf"
fi
signer=$(gpg --batch --with-colons --list-secret-keys ${id:+"$id"} | awk -F: '$1 == "fpr" { print $10; exit }')
umask 022
"$@" --gpg-sign="$signer" --gpg-homedir="$GNUPGHOME"
"#;

/// Who signs: a file with a secret key, or a key of a directory of gpg's.
#[derive(Debug, Clone, Default)]
pub struct Signer {
    /// File with the secret key.
    pub key: Option<PathBuf>,
    /// gpg's directory.
    pub home: Option<PathBuf>,
    /// Which key of it.
    pub id: Option<String>,
    /// File whose first line opens the key.
    pub passphrase: Option<PathBuf>,
}

impl Signer {
    /// A command of ostree's that signs what it makes.
    pub fn ostree<'a>(&self, cx: &'a BuildContext<'a>, command: Vec<String>) -> Runner<'a> {
        let text = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
        let script = format!("{HOME}{SIGNED_OSTREE}");
        let mut argv: Vec<String> = ["sh", "-e", "-u", "-c", &script, "sign"].map(str::to_owned).to_vec();
        argv.extend([cx.source_date_epoch.to_string(), text(&self.key), text(&self.home)]);
        argv.extend([self.id.clone().unwrap_or_default(), text(&self.passphrase)]);
        argv.extend(command);
        let mut runner = cx.host_alone(argv);
        for path in [&self.key, &self.home, &self.passphrase].into_iter().flatten() {
            runner = runner.bind(path, path, true);
        }
        if self.passphrase.is_none() {
            runner = runner.hint("if the key has a passphrase, `passphrase-file` names the file that it is in");
        }
        runner
    }

    /// The same with paths that are resolved.
    pub fn resolved(self) -> Result<Self> {
        let resolve = |path: Option<PathBuf>| {
            path.map(|path| path.canonicalize().with_context(|| format!("looking for {}", path.display()))).transpose()
        };
        Ok(Self {
            key: resolve(self.key)?,
            home: resolve(self.home)?,
            id: self.id,
            passphrase: resolve(self.passphrase)?,
        })
    }
}
