//! Servers of the field, unmodified and started as their users start them: what each of them goes through, and which of them
//! are refused before anything is touched. `docs/servers.md` has a row for each test here.

mod document;
mod place;
mod procedure;
mod refusal;

mod graceful;
mod java;
mod node;
mod php;
mod proxy;
mod python;
mod ruby;
mod shell;
mod supervised;
mod web;
