//! Writes the documents of the API into a folder: `cargo xtask api` calls it.

use std::{env, error::Error, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = env::args_os().nth(1).map(PathBuf::from).ok_or("name the folder")?;
    for (name, text) in agent_api::schema::documents() {
        fs::write(folder.join(name), text)?;
    }
    Ok(())
}
