//! Secrets whose places are known, and who makes them anew.

/// A secret of a system.
#[derive(Debug)]
pub(in crate::build) struct Known {
    /// Its file.
    pub path: &'static str,
    /// What is in the file when it is more than a place for one.
    holds: Holds,
    /// Files that are made together with it.
    pub with: &'static [&'static str],
    /// Who makes it anew.
    pub renewal: Renewal,
}

/// How a file is told that has the secret.
#[derive(Debug)]
enum Holds {
    /// Anything at all.
    Anything,
    /// A text.
    Text(&'static str),
    /// 32 hex digits, as machine-id(5) has them.
    Id,
}

/// Who makes a secret anew where there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::build) enum Renewal {
    /// What uses it, when it starts.
    ItsUser,
    /// This command of a shell, whose first word is a program that has to be there.
    Command(&'static str),
    /// Nobody: it is for those who build to say whether it is meant.
    Nobody,
}

const fn known(path: &'static str, renewal: Renewal) -> Known {
    Known { path, holds: Holds::Anything, with: &[], renewal }
}

/// All of them, by the packages that make them.
pub(in crate::build) const KNOWN: [Known; 21] = [
    Known { holds: Holds::Id, ..known("/etc/machine-id", Renewal::Nobody) },
    Known { holds: Holds::Id, ..known("/var/lib/dbus/machine-id", Renewal::ItsUser) },
    // systemd: systemd-creds(1), systemd-random-seed.service(8).
    known("/var/lib/systemd/credential.secret", Renewal::ItsUser),
    known("/var/lib/systemd/random-seed", Renewal::ItsUser),
    known("/var/lib/urandom/random-seed", Renewal::ItsUser),
    // ssl-cert. Its certificate has a link to it, named by a digest, which the command replaces.
    Known {
        with: &["/etc/ssl/certs/ssl-cert-snakeoil.pem"],
        ..known(
            "/etc/ssl/private/ssl-cert-snakeoil.key",
            Renewal::Command("/usr/sbin/make-ssl-cert generate-default-snakeoil --force-overwrite"),
        )
    },
    // bind9, as its postinst does it.
    known(
        "/etc/bind/rndc.key",
        Renewal::Command(
            "/usr/sbin/rndc-confgen -a && chown bind:bind /etc/bind/rndc.key && chmod 640 /etc/bind/rndc.key",
        ),
    ),
    // unbound.
    Known {
        with: &[
            "/etc/unbound/unbound_control.pem",
            "/etc/unbound/unbound_server.key",
            "/etc/unbound/unbound_server.pem",
        ],
        ..known("/etc/unbound/unbound_control.key", Renewal::Command("/usr/sbin/unbound-control-setup"))
    },
    // network-manager: addresses follow from it.
    Known {
        with: &["/var/lib/NetworkManager/secret_key-0.pub"],
        ..known("/var/lib/NetworkManager/secret_key", Renewal::ItsUser)
    },
    // open-iscsi: the name that storage knows the machine by.
    Known {
        holds: Holds::Text("InitiatorName="),
        ..known(
            "/etc/iscsi/initiatorname.iscsi",
            Renewal::Command(
                "/usr/sbin/iscsi-iname >/dev/null && umask 077 && echo \"InitiatorName=$$(/usr/sbin/iscsi-iname)\" \
                 >/etc/iscsi/initiatorname.iscsi",
            ),
        )
    },
    // nvme-cli: the same.
    Known {
        with: &["/etc/nvme/hostid"],
        ..known(
            "/etc/nvme/hostnqn",
            Renewal::Command(
                "/usr/sbin/nvme gen-hostnqn >/etc/nvme/hostnqn && sed 's/.*uuid://' /etc/nvme/hostnqn >/etc/nvme/hostid",
            ),
        )
    },
    // rabbitmq-server.
    known("/var/lib/rabbitmq/.erlang.cookie", Renewal::ItsUser),
    // tor.
    known("/var/lib/tor/keys/secret_id_key", Renewal::ItsUser),
    known("/var/lib/tor/keys/ed25519_master_id_secret_key", Renewal::ItsUser),
    // What machines of one cluster, realm or domain share on purpose.
    known("/etc/munge/munge.key", Renewal::Nobody),
    known("/etc/krb5.keytab", Renewal::Nobody),
    known("/var/lib/samba/private/secrets.tdb", Renewal::Nobody),
    known("/etc/corosync/authkey", Renewal::Nobody),
    // gethostid(3), by which ZFS knows whose its pools are.
    known("/etc/hostid", Renewal::Nobody),
    // cloud-init: that the system has been started before.
    known("/var/lib/cloud/data/instance-id", Renewal::Nobody),
    // mysql-server: a password of its administrator.
    Known { holds: Holds::Text("\npassword = "), ..known("/etc/mysql/debian.cnf", Renewal::Nobody) },
];

impl Known {
    /// Whether a file has it, rather than a place for it.
    pub(super) fn is_in(&self, contents: &[u8]) -> bool {
        let text = || String::from_utf8_lossy(contents);
        match self.holds {
            Holds::Anything => !contents.is_empty(),
            Holds::Text(wanted) => text().contains(wanted),
            Holds::Id => text().trim().len() == 32 && text().trim().bytes().all(|byte| byte.is_ascii_hexdigit()),
        }
    }
}
