//! No room is left in the kernel maps.

use std::collections::BTreeMap;

use agent_ebpf::steering::{ListenerSet, ListenerSetKey};
use anyhow::Result;
use aya::maps::{HashMap, Map, MapData};
use tests::servers::Script;
use tests::stage::{self, LIMIT, Stage};
use tests::wait;

use crate::PORT;

/// More than half of what one service may have: two generations of it do not fit.
const MANY: usize = 1_500;

/// The listeners of each generation that steering may lead to, by what the kernel map says.
fn listeners_in_maps(stage: &Stage) -> Result<BTreeMap<u32, u32>> {
    let pin = stage.agent.links().with_file_name("maps").join("LISTENER_SETS");
    let map = Map::HashMap(MapData::from_pin(pin)?);
    let sets: HashMap<_, ListenerSetKey, ListenerSet> = HashMap::try_from(map)?;
    sets.iter().map(|entry| Ok(entry.map(|(key, set)| (key.generation, set.count))?)).collect()
}

#[tokio::test]
async fn a_candidate_that_does_not_fit_into_the_maps_is_refused_and_the_old_one_serves()
-> Result<()> {
    let many = Script::with(PORT, &["--reuse-port", "--listeners", &MANY.to_string()])?;
    let (stage, _first) = Stage::attached(&many)?;
    let only_first = BTreeMap::from([(1, u32::try_from(MANY)?)]);
    assert_eq!(listeners_in_maps(&stage)?, only_first);
    let running = stage.busy(&many)?;
    // Started by hand, because its listeners have to be there all at once.
    let second = stage.start(&many, 2)?;
    wait::until("all listeners", LIMIT, || {
        Ok((stage.listeners()?.len() == 2 * MANY).then_some(()))
    })?;
    let upgrade = ["upgrade", "--port", "8080", "--pid", &second.pid().to_string()];
    let refused = stage.agent.run(&upgrade)?;
    assert_eq!(refused.code, Some(5), "{refused:?}");
    assert!(refused.stderr.contains("may have 2048"), "{refused:?}");
    let service = stage.until_steady(PORT)?;
    assert_eq!(service.generations[0].number.0, 1);
    assert_eq!(listeners_in_maps(&stage)?, only_first);
    drop(second);

    let few = Script::with(PORT, &["--reuse-port"])?;
    stage.switch(&few, 3, &[])?;
    stage::until_answers(&running, 3, 20)?;
    let summary = running.stop().await.summary;
    assert_eq!(summary.failures(), 0, "{summary}");
    assert_eq!(summary.generations().into_keys().collect::<Vec<_>>(), [1, 3]);
    Ok(())
}
