//! Every attribute of the file: created, read back by `ip`, changed in place, changed back, taken out of the file (the
//! documented default returns), deleted; alone, and the tunnels' in pairs.

mod address;
mod route;
mod tunnel;

pub fn trials() -> Vec<libtest_mimic::Trial> {
    [tunnel::trials(), address::trials(), route::trials()]
        .into_iter()
        .flatten()
        .collect()
}
