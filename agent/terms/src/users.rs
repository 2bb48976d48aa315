//! Whose users are meant by their numbers.

use std::fs;

/// Whether the user namespace that we live in is the machine's own: in others root has the same capabilities, and the kernel asks
/// for more (`user_namespaces(7)`).
pub fn are_of_the_machine() -> bool {
    fs::read_to_string(USERS).is_ok_and(|users| is_of_the_machine(&users))
}

/// Whether these are the users of the machine's own user namespace, which has them all, each under its own number.
pub fn is_of_the_machine(users: &str) -> bool {
    users.split_ascii_whitespace().eq(["0", "0", "4294967295"])
}

/// The users of our user namespace.
pub const USERS: &str = "/proc/thread-self/uid_map";
