//! Signatures of repositories, verified by gpgv or sqv.

use std::collections::HashSet;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::debian::sources::Suite;
use crate::diagnostics::Fault;
use crate::sys::process::inherit;

/// Digest algorithms that prove nothing any more, by their numbers (RFC 9580, 9.5): MD5, SHA-1, RIPEMD-160.
const BROKEN_DIGESTS: [&str; 3] = ["1", "2", "3"];

/// Verifies that at least one key of the binary keyring `keys` has signed `text`, as apt asks for it.
///
/// What this process has verified once it does not verify again: many steps read the same repositories.
pub(super) fn detached(suite: &Suite, text: &[u8], signature: &[u8], keys: &[u8]) -> Result<()> {
    static VERIFIED: Mutex<Option<HashSet<[blake3::Hash; 3]>>> = Mutex::new(None);
    let what = [text, signature, keys].map(blake3::hash);
    let verified = || VERIFIED.lock().unwrap_or_else(PoisonError::into_inner);
    if verified().as_ref().is_some_and(|known| known.contains(&what)) {
        return Ok(());
    }
    verify(suite, text, signature, keys)?;
    verified().get_or_insert_default().insert(what);
    Ok(())
}

fn verify(suite: &Suite, text: &[u8], signature: &[u8], keys: &[u8]) -> Result<()> {
    // In memory: nothing is left anywhere when this process is killed.
    let file = |contents: &[u8]| -> Result<OwnedFd> {
        let file = memfd_create(c"debforge", MFdFlags::MFD_CLOEXEC).context("verifying a signature")?;
        let mut file = File::from(file);
        file.write_all(contents).context("verifying a signature")?;
        Ok(file.into())
    };
    let files = [file(keys)?, file(signature)?, file(text)?];
    let paths: Vec<String> = files.iter().map(|file| format!("/proc/self/fd/{}", file.as_raw_fd())).collect();
    let verifier = |name: &str| {
        let mut program = Command::new(name);
        inherit(&mut program, &files.each_ref());
        program
    };
    let gpgv = verifier("gpgv")
        .args(["--homedir", "/nonexistent", "--ignore-time-conflict", "--status-fd", "1", "--keyring"])
        .args(&paths)
        .env("LC_ALL", "C.UTF-8")
        .output();
    match gpgv {
        Ok(output) => judge(&String::from_utf8_lossy(&output.stdout)).map_err(|why| refuse(suite, &why)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let output = verifier("sqv").arg("--keyring").args(&paths).output();
            match output {
                Ok(output) if output.status.success() => Ok(()),
                Ok(output) => {
                    let said = String::from_utf8_lossy(&output.stderr);
                    let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("sqv refused it");
                    Err(refuse(suite, last.trim()))
                }
                Err(_) => Err(Fault::machine("neither gpgv nor sqv is there to verify repositories with")
                    .hint("apt install gpgv")
                    .into()),
            }
        }
        Err(error) => Err(error).context("starting gpgv"),
    }
}

/// Reads gpgv's status lines (doc/DETAILS of GnuPG): `Err` says why the signatures prove nothing.
fn judge(status: &str) -> Result<(), String> {
    let mut good = false;
    let mut strong = false;
    let mut reasons = Vec::new();
    for line in status.lines() {
        let mut words = line.strip_prefix("[GNUPG:] ").unwrap_or_default().split(' ');
        let (keyword, key) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        match keyword {
            "BADSIG" => return Err(format!("the signature by key {key} does not match the file")),
            "GOODSIG" => good = true,
            // Fingerprint, date, time, expiry, version, reserved, public key algorithm, digest algorithm.
            "VALIDSIG" if words.nth(6).is_some_and(|digest| BROKEN_DIGESTS.contains(&digest)) => {
                reasons.push(format!("the signature by key {key} uses a broken digest"));
            }
            "VALIDSIG" => strong = true,
            "NO_PUBKEY" => reasons.push(format!("key {key} is not in the keyring")),
            "EXPKEYSIG" => reasons.push(format!("key {key} has expired")),
            "REVKEYSIG" => reasons.push(format!("key {key} has been revoked")),
            "EXPSIG" => reasons.push(format!("the signature by key {key} has expired")),
            _ => {}
        }
    }
    match (good && strong, reasons.is_empty()) {
        (true, _) => Ok(()),
        (false, true) => Err("there is no signature".to_owned()),
        (false, false) => Err(reasons.join(", ")),
    }
}

fn refuse(suite: &Suite, why: &str) -> anyhow::Error {
    Fault::failed(format!("the signature of the repository {suite} could not be verified: {why}"))
        .hint("give the repository the keyring that it is signed with (`signed-by`, `keyring-files`)")
        .hint("for Debian's own archive, bring debian-archive-keyring up to date")
        .into()
}

#[cfg(test)]
mod tests {
    use super::judge;

    const GOOD: &str = "[GNUPG:] GOODSIG AAAA Archive\n[GNUPG:] VALIDSIG FFFF 2025-09-06 1757 0 4 0 1 8 00 FFFF\n";

    #[test]
    fn one_good_signature_is_enough() {
        assert_eq!(judge(GOOD), Ok(()));
        assert_eq!(judge(&format!("[GNUPG:] NO_PUBKEY BBBB\n{GOOD}")), Ok(()));
    }

    #[test]
    fn says_why_a_signature_does_not_count() {
        assert!(judge(&format!("{GOOD}[GNUPG:] BADSIG CCCC x\n")).unwrap_err().contains("CCCC"));
        assert_eq!(judge("[GNUPG:] NO_PUBKEY BBBB\n").unwrap_err(), "key BBBB is not in the keyring");
        assert!(judge(&GOOD.replace("1 8 00", "1 2 00")).unwrap_err().contains("broken digest"));
        assert!(
            judge("[GNUPG:] EXPKEYSIG AAAA x\n[GNUPG:] VALIDSIG F 1 2 0 4 0 1 8 00 F\n")
                .unwrap_err()
                .contains("expired")
        );
        assert_eq!(judge("").unwrap_err(), "there is no signature");
    }
}
