//! gunicorn and uvicorn.

use anyhow::Result;
use tests::servers::{Keeps, Kind, Release};

use crate::procedure::goes_through_all;

const PORT: u16 = 8080;

/// A plain WSGI application.
const WSGI: &str = "def app(environ, start_response):
    body = b'@VERSION@\\n'
    start_response('200 OK', [('Content-Length', str(len(body)))])
    return [body]
";

/// A plain ASGI application.
const ASGI: &str = "async def app(scope, receive, send):
    if scope['type'] != 'http':
        return
    headers = [(b'content-type', b'text/plain'), (b'content-length', b'2')]
    await send({'type': 'http.response.start', 'status': 200, 'headers': headers})
    await send({'type': 'http.response.body', 'body': b'@VERSION@\\n'})
";

/// What a forgotten dependency looks like.
const NOT_INSTALLED: &str = "import a_module_that_is_not_installed\n";

/// gunicorn with its ordinary workers, which close each connection.
const GUNICORN: Kind = Kind {
    name: "gunicorn",
    port: PORT,
    user: Some("www-data"),
    keeps: Keeps::Nothing,
    pid_file: None,
    release: |release| gunicorn(release, WSGI, &[]),
};

fn gunicorn(release: &Release<'_>, application: &str, options: &[&str]) -> Result<Vec<String>> {
    release.file("app.py", application, NOT_INSTALLED)?;
    let bind = format!("127.0.0.1:{PORT}");
    let own = ["gunicorn", "--workers", "2", "--bind", &bind, "--chdir", &release.here()];
    Ok(own.iter().chain(options).chain(&["app:app"]).map(|word| (*word).to_owned()).collect())
}

/// uvicorn by itself.
pub(crate) const UVICORN: Kind = Kind {
    name: "uvicorn",
    keeps: Keeps::Connections,
    release: |release| uvicorn(release, &[]),
    ..GUNICORN
};

fn uvicorn(release: &Release<'_>, options: &[&str]) -> Result<Vec<String>> {
    release.file("app.py", ASGI, NOT_INSTALLED)?;
    let port = PORT.to_string();
    let own = ["uvicorn", "--port", &port, "--log-level", "warning", "--app-dir", &release.here()];
    Ok(own.iter().chain(options).chain(&["app:app"]).map(|word| (*word).to_owned()).collect())
}

#[tokio::test]
async fn gunicorn_with_sync_workers() -> Result<()> {
    goes_through_all(GUNICORN, &[]).await
}

#[tokio::test]
async fn gunicorn_that_shares_its_port() -> Result<()> {
    let release = |release: &Release<'_>| gunicorn(release, WSGI, &["--reuse-port"]);
    goes_through_all(Kind { name: "gunicorn-reuse-port", release, ..GUNICORN }, &[]).await
}

#[tokio::test]
async fn gunicorn_that_loads_the_application_first() -> Result<()> {
    let release = |release: &Release<'_>| gunicorn(release, WSGI, &["--preload"]);
    goes_through_all(Kind { name: "gunicorn-preload", release, ..GUNICORN }, &[]).await
}

#[tokio::test]
async fn gunicorn_with_uvicorn_workers() -> Result<()> {
    let release = |release: &Release<'_>| {
        gunicorn(release, ASGI, &["--worker-class", "uvicorn.workers.UvicornWorker"])
    };
    let kind = Kind { name: "gunicorn-uvicorn", keeps: Keeps::Connections, release, ..GUNICORN };
    goes_through_all(kind, &[]).await
}

#[tokio::test]
async fn uvicorn_alone() -> Result<()> {
    goes_through_all(UVICORN, &[]).await
}

#[tokio::test]
async fn uvicorn_with_workers() -> Result<()> {
    let release = |release: &Release<'_>| uvicorn(release, &["--workers", "2"]);
    goes_through_all(Kind { name: "uvicorn-workers", release, ..UVICORN }, &[]).await
}
