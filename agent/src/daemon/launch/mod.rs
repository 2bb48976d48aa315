//! What the next generation is started with, and its start.
//!
//! - `again`: what the running generation was started with, for an upgrade that names no command
//! - `carried`: what the control groups of a server confine it by, carried over to those of the next generation
//! - `confined`: how a next generation is confined
//! - `error`: why a next generation is not launched
//! - `groups`: the control groups of an agent, below one that agents of other network namespaces may use too
//! - `given`: what a generation was given when it was started, as far as its successor gets it
//! - `inherit`: what the next generation is given of the one that it replaces
//! - `kept_name`: a name that has a second one
//! - `launching`: launches under way
//! - `leaving_namespaces`: what a next generation keeps that does not live in the namespaces of the one before
//! - `log_lengths`: keeps the output of launched generations from filling the disk
//! - `logs`: the output of launched generations, one file each
//! - `pending_report`: a launch of which nobody knows yet how it ends
//! - `process_room`: whether a next generation's processes could be followed
//! - `shared_names`: names that two generations go by, and that one of them takes from the other
//! - `sharing`: whether the next generation may bind the ports of those before it
//! - `start`: launches a candidate with what the generation it replaces was given
//! - `working_directory`: where a new generation runs, against where the one who asks for it is

mod again;
mod carried;
mod confined;
pub(super) mod error;
pub(super) mod given;
pub(super) mod groups;
mod inherit;
pub(super) mod kept_name;
mod launching;
mod leaving_namespaces;
mod log_lengths;
pub(super) mod logs;
pub(super) mod pending_report;
mod process_room;
mod shared_names;
mod sharing;
mod start;
mod working_directory;
