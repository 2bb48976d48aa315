//! php-fpm behind nginx, which makes a new connection for each request.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use tests::servers::{Keeps, Kind, Released, Server as _};

use crate::place::Place;
use crate::procedure::Procedure;

/// php-fpm as Debian has it: a master of root, and workers of www-data.
const PHP_FPM: Kind = Kind {
    name: "php-fpm",
    port: 9000,
    user: None,
    keeps: Keeps::Nothing,
    pid_file: None,
    release: |release| {
        release.file("index.php", "@VERSION@\n", "")?;
        let broken = "[global]\nerror_log = @HERE@/error.log\n[www]\nno_such_setting = 1\n";
        let configuration = release.file("php-fpm.conf", PHP_FPM_CONF, broken)?;
        let program = program()?.display().to_string();
        Ok([&program, "--nodaemonize", "--fpm-config", &configuration].map(str::to_owned).to_vec())
    },
};

/// The document root of nginx does not move: each pool has its own folder.
const PHP_FPM_CONF: &str = "[global]
error_log = @HERE@/error.log
[www]
user = www-data
group = www-data
listen = 127.0.0.1:@PORT@
pm = static
pm.max_children = 3
php_admin_value[auto_prepend_file] = @HERE@/index.php
";

/// Debian's name of the program has the version of PHP in it.
fn program() -> Result<PathBuf> {
    let is_ours = |path: &Path| {
        path.file_name().is_some_and(|it| it.to_string_lossy().starts_with("php-fpm"))
    };
    let mut files = std::fs::read_dir("/usr/sbin")?.flatten().map(|file| file.path());
    files.find(|path| is_ours(path)).context("there is no php-fpm: `cargo xtask setup` installs it")
}

const NGINX: Kind = Kind {
    name: "nginx",
    port: 8080,
    release: |release| {
        // What a request asks for. The answer is what the pool puts before it.
        release.file("empty.php", "", "")?;
        let configuration = release.file("nginx.conf", NGINX_CONF, "")?;
        let log = release.shared("error.log");
        Ok(["nginx", "-p", &release.here(), "-e", &log, "-c", &configuration]
            .map(str::to_owned)
            .to_vec())
    },
    ..PHP_FPM
};

const NGINX_CONF: &str = "daemon off;
pid @HERE@/nginx.pid;
events { worker_connections 1024; }
http {
    access_log off;
    client_body_temp_path @HERE@/body;
    proxy_temp_path @HERE@/proxy;
    fastcgi_temp_path @HERE@/fastcgi;
    uwsgi_temp_path @HERE@/uwsgi;
    scgi_temp_path @HERE@/scgi;
    server {
        listen @PORT@;
        location / {
            fastcgi_pass 127.0.0.1:9000;
            include /etc/nginx/fastcgi_params;
            fastcgi_param SCRIPT_FILENAME @HERE@/empty.php;
        }
    }
}
";

#[tokio::test]
async fn php_fpm_behind_nginx() -> Result<()> {
    let (server, proxy) = (Released::new(PHP_FPM)?, Released::new(NGINX)?);
    let place = Place::new()?;
    let _proxy = place.stage.start(&proxy, 1)?;
    let others = place.stage.namespace.processes()?;
    let _first = place.stage.start(&server, 1)?;
    Procedure { server: &server, options: &[], clients: proxy.address(), others }
        .run(&place.stage)
        .await
}
