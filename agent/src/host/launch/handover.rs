//! Variables by which other mechanisms hand descriptors, or their place beside a parent, to one certain process.
//!
//! They mean nothing to a process that is started anew: the descriptors that they number are not there, and the parent that
//! they speak of waits for nobody. A server that finds them all the same serves a wrong descriptor, or refuses to start.

/// The mechanism that a variable belongs to, if it is one of these.
pub fn mechanism_of(variable: &[u8]) -> Option<&'static str> {
    let names = |(_, names): &&(&str, &[&str])| names.iter().any(|name| matches(name, variable));
    HANDOVERS.iter().find(names).map(|(mechanism, _)| *mechanism)
}

/// A name that ends with `*` stands for all that begin like it.
fn matches(pattern: &str, variable: &[u8]) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => variable.starts_with(prefix.as_bytes()),
        None => variable == pattern.as_bytes(),
    }
}

/// Each mechanism, and the variables that it sets for the process that takes over. Variables by which people configure the
/// same programs (`UWSGI_HTTP`, `PM2_HOME`, `GUNICORN_CMD_ARGS`) are none of them.
const HANDOVERS: &[(&str, &[&str])] = &[
    // sd_listen_fds(3), which gunicorn, lighttpd, facebookgo/grace and systemfd speak too.
    (
        "socket activation",
        &["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "LISTEN_PIDFDID", "FDSTORE"],
    ),
    // sd_notify(3) and sd_watchdog_enabled(3): the manager listens to the processes of its unit only.
    ("systemd", &["NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "MAINPID", "MANAGERPID"]),
    ("gunicorn", &["GUNICORN_FD", "GUNICORN_PID"]),
    ("nginx", &["NGINX", "NGINX_BPF_MAPS"]),
    ("php-fpm", &["FPM_SOCKETS*"]),
    (
        "haproxy",
        &[
            "HAPROXY_MWORKER_REEXEC",
            "HAPROXY_MWORKER_WAIT_ONLY",
            "HAPROXY_PROCESSES",
            "HAPROXY_LOAD_SUCCESS",
            "HAPROXY_STARTUPLOGS_FD",
        ],
    ),
    (
        "uWSGI",
        &[
            "UWSGI_RELOADS",
            "UWSGI_ORIGINAL_PROC_NAME",
            "UWSGI_EMPEROR_FD",
            "UWSGI_EMPEROR_FD_CONFIG",
            "UWSGI_EMPEROR_PROXY",
            "UWSGI_BROODLORD_NUM",
            "UWSGI_JAIL_PID",
        ],
    ),
    ("puma", &["PUMA_INHERIT_*"]),
    ("unicorn", &["UNICORN_FD"]),
    ("einhorn", &["EINHORN_*"]),
    ("Server::Starter", &["SERVER_STARTER_PORT", "SERVER_STARTER_GENERATION"]),
    ("tableflip", &["TABLEFLIP_HAS_PARENT_7DIU3"]),
    ("endless", &["ENDLESS_CONTINUE", "ENDLESS_SOCKET_ORDER"]),
    ("goagain", &["GOAGAIN_*"]),
    (
        "overseer",
        &[
            "OVERSEER_SLAVE_ID",
            "OVERSEER_IS_SLAVE",
            "OVERSEER_NUM_FDS",
            "OVERSEER_BIN_ID",
            "OVERSEER_BIN_PATH",
            "OVERSEER_BIN_CHECK",
            "GO_UPGRADE_BIN_CHECK",
        ],
    ),
    // The channel to the parent: of `cluster`, `child_process.fork` and so of pm2.
    ("Node", &["NODE_CHANNEL_FD", "NODE_CHANNEL_SERIALIZATION_MODE", "NODE_UNIQUE_ID"]),
    ("Werkzeug's reloader", &["WERKZEUG_SERVER_FD", "WERKZEUG_RUN_MAIN"]),
    ("s6", &["S6_FD#", "S6_FD_*", "S6_FDID_*"]),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hands_descriptors_on_is_known_by_name_or_by_its_beginning() {
        for (name, mechanism) in [
            ("LISTEN_FDS", "socket activation"),
            ("NGINX", "nginx"),
            ("PUMA_INHERIT_0", "puma"),
            ("EINHORN_FD_3", "einhorn"),
            ("FPM_SOCKETS_1", "php-fpm"),
        ] {
            assert_eq!(mechanism_of(name.as_bytes()), Some(mechanism), "{name}");
        }
    }

    #[test]
    fn what_configures_a_server_stays() {
        for name in [
            "PATH",
            "NGINX_PORT",
            "LISTEN",
            "LISTEN_ADDRESS",
            "UWSGI_HTTP",
            "GUNICORN_CMD_ARGS",
            "PM2_HOME",
            "NODE_ENV",
            "HAPROXY_CFGFILES",
            "EINHORN",
            "",
        ] {
            assert_eq!(mechanism_of(name.as_bytes()), None, "{name}");
        }
    }
}
