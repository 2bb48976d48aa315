//! What is looked at when, and what was seen.
//!
//! - `attribute`: finds out whose the connections are that were open before their listeners had tags
//! - `backlog`: the accept queues of a primary that has to prove itself, as far as they were looked at
//! - `evidence`: what the world shows of a service, whatever was written down
//! - `family`: the processes of a generation, followed from birth
//! - `flows`: the flows of a service
//! - `leaving`: looks at generations that leave
//! - `listeners`: which listeners of a service are open
//! - `lost_reports`: what to do when reports of the kernel programs were lost
//! - `observe`: looks at generations
//! - `pick_listener`: from the listeners that a generation's processes hold to the one that serves
//! - `probe`: asks a candidate to accept
//! - `probing`: a candidate that is asked to accept, as far as that has come
//! - `returns`: when to look whether a server is started again, and what whoever starts it does besides
//! - `serving`: finds out who serves
//! - `settling`: watches what waits for a primary that has to prove itself
//! - `starter_of`: who has started a generation, as far as that is remembered
//! - `starters`: servers that come back
//! - `strangers`: when to look at listeners on our ports that are nobody's, and whom people were told of
//! - `successor`: servers that somebody else starts on our ports

pub(super) mod attribute;
pub(super) mod backlog;
mod evidence;
mod family;
mod flows;
mod leaving;
mod listeners;
mod lost_reports;
pub(super) mod observe;
mod pick_listener;
mod probe;
pub(super) mod probing;
pub(super) mod returns;
mod serving;
mod settling;
pub(super) mod starter_of;
mod starters;
pub(super) mod strangers;
mod successor;
