//! What the options of `load` mean.

use std::{
    net::{SocketAddr, ToSocketAddrs},
    time::Duration,
};

use agent_api::{Problem, ProblemKind};
use agent_load::{
    KeepAlive, Marks, Observations, OneShot, Pace, Plan, Protocol, Source, Stream, Upload,
};

use crate::cli::arguments::{
    ClientOptions, ExchangeOptions, LoadArguments, ProtocolChoice, SourceChoice,
};

/// The load that was asked for.
pub(super) fn plan(arguments: &LoadArguments) -> Result<Plan, Problem> {
    let target = resolve(&arguments.target)?;
    Ok(for_target(target, arguments))
}

fn resolve(target: &str) -> Result<SocketAddr, Problem> {
    let unknown = || {
        let problem = Problem::new(ProblemKind::Usage, format!("`{target}` is no server"));
        problem.fix("give a host and a port, as in `localhost:8080` or `[::1]:8080`")
    };
    let mut addresses = target.to_socket_addrs().map_err(|error| unknown().because(&error))?;
    addresses.next().ok_or_else(unknown)
}

fn for_target(target: SocketAddr, arguments: &LoadArguments) -> Plan {
    let LoadArguments { target: _, duration: _, threads, clients, exchange } = arguments;
    let ClientOptions {
        rate,
        in_flight,
        connections,
        request_rate,
        think,
        streams,
        uploads,
        source,
    } = clients;
    let ExchangeOptions {
        protocol: _,
        path: _,
        stream_path,
        upload_path,
        line: _,
        generations,
        timeout,
    } = exchange;
    let nothing = connections.is_none() && streams.is_none() && uploads.is_none();
    let rate = rate.or(nothing.then_some(DEFAULT_RATE));
    let in_flight = usize::try_from(*in_flight).unwrap_or(usize::MAX);
    let pace = request_rate.map_or(Pace::Think(think.unwrap_or(DEFAULT_THINK)), Pace::Rate);
    Plan {
        one_shot: rate.map(|rate| OneShot { rate, in_flight }),
        keep_alive: connections.map(|connections| KeepAlive { connections, pace, requests: None }),
        stream: streams.map(|connections| Stream {
            connections,
            path: stream_path.clone(),
            ..Stream::default()
        }),
        upload: uploads.map(|connections| Upload {
            connections,
            path: upload_path.clone(),
            ..Upload::default()
        }),
        source: match source {
            SourceChoice::Kernel => Source::Kernel,
            SourceChoice::Spread => Source::Spread,
        },
        marks: if generations.is_some() { Marks::Required } else { Marks::Optional },
        generations: generations.as_ref().map(|generations| generations.0.clone()),
        timeout: *timeout,
        // Single answers would fill the memory, and nobody asks for them.
        observations: Observations::Discard,
        threads: *threads,
        ..Plan::new(target, protocol(exchange))
    }
}

fn protocol(exchange: &ExchangeOptions) -> Protocol {
    match exchange.protocol {
        ProtocolChoice::Http => Protocol::Http { path: exchange.path.clone() },
        ProtocolChoice::Tcp => Protocol::Line { line: exchange.line.clone() },
        ProtocolChoice::Udp => Protocol::Datagram { text: exchange.line.clone() },
    }
}

const DEFAULT_RATE: u32 = 100;
const DEFAULT_THINK: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, arguments::Command};

    fn planned(line: &str) -> Result<Plan, Problem> {
        let typed = ["agent", "--config=/dev/null", "load"].into_iter();
        let cli = Cli::read(typed.chain(line.split_whitespace()).map(Into::into)).unwrap();
        let Command::Load(arguments) = cli.command else { panic!("not a load") };
        plan(&arguments)
    }

    #[test]
    fn what_is_typed_is_what_is_planned() {
        let all = "127.0.0.1:80 --rate 5 --connections 3 --request-rate 7 --streams 1 --uploads 2 --threads 2 \
                   --source spread --generations 2-3 --in-flight 9";
        insta::assert_debug_snapshot!([
            planned("127.0.0.1:80").unwrap(),
            planned(all).unwrap(),
            planned("[::1]:53 --protocol udp --line hello --connections 1 --think 1s").unwrap(),
        ]);
    }

    #[test]
    fn a_target_has_a_host_and_a_port() {
        for target in ["80", "127.0.0.1", "127.0.0.1:http", "127.0.0.1:70000"] {
            let problem = planned(target).unwrap_err();
            assert_eq!(problem.kind, ProblemKind::Usage, "{target}");
            assert!(problem.fix.is_some());
        }
    }
}
