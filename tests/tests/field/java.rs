//! A server in Java.

use std::process::Command;

use anyhow::{Result, ensure};
use tests::servers::{Keeps, Kind, Release, Version};

use crate::procedure::goes_through_all;

/// The HTTP server that comes with Java.
const JAVA: Kind = Kind {
    name: "java",
    port: 8080,
    user: Some("www-data"),
    keeps: Keeps::Connections,
    pid_file: None,
    release: |release| {
        let (classes, number) = (classes(release)?, release.version.number().to_string());
        // Quick to start, on a machine with few processors.
        let words = ["java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", &classes];
        Ok(words.iter().chain(&["Server", &number]).map(|word| (*word).to_owned()).collect())
    },
};

/// The folder with the compiled program, which all versions share. A broken one looks for it where it is not.
fn classes(release: &Release<'_>) -> Result<String> {
    let folder = release.shared("classes");
    match release.version {
        Version::Broken => return Ok(release.here()),
        Version::Works(1) => {
            let source = release.file("Server.java", SOURCE, "")?;
            let compiled = Command::new("javac").args(["-d", &folder, &source]).output()?;
            ensure!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
        }
        Version::Works(_) => {}
    }
    Ok(folder)
}

const SOURCE: &str = r#"import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;
import java.util.concurrent.Executors;

class Server {
    public static void main(String[] words) throws Exception {
        var server = HttpServer.create(new InetSocketAddress(@PORT@), 512);
        byte[] answer = (words[0] + "\n").getBytes();
        server.createContext("/", exchange -> {
            exchange.sendResponseHeaders(200, answer.length);
            exchange.getResponseBody().write(answer);
            exchange.close();
        });
        server.setExecutor(Executors.newFixedThreadPool(4));
        server.start();
    }
}
"#;

#[tokio::test]
async fn a_server_in_java() -> Result<()> {
    goes_through_all(JAVA, &[]).await
}
