//! `--netns`: another namespace's network, and no other.

use crate::world::{TUNNELFORM, World, assert_same, run, trials};

trials![bad_names, the_own_namespace_gets_nothing, missing_rights];

const FILE: &str =
    "version: 1\nname: hq\ntunnels: {tun1: {local: 192.168.10.2, remote: 192.168.20.2}}\n";

/// A name that leads elsewhere, or to no namespace, is an error that names it; nothing is changed anywhere.
fn bad_names() {
    for (name, word) in [
        ("../x", "can't be the name"),
        ("", "can't be the name"),
        (".", "can't be the name"),
        ("..", "can't be the name"),
        ("/run/netns/x", "can't be the name"),
        ("no-such-netns", "No such file"),
    ] {
        for command in ["apply", "status", "destroy"] {
            run(TUNNELFORM, &[command, "-", "--netns", name], FILE)
                .exits(1)
                .says(word)
                .says(&format!("{name:?}"));
        }
    }
    run("touch", &["/run/netns/no-netns"], "").ok();
    run(TUNNELFORM, &["apply", "-", "--netns", "no-netns"], FILE)
        .exits(1)
        .says("\"no-netns\"");
    run("rm", &["/run/netns/no-netns"], "").ok();
}

/// What goes into one namespace doesn't show in the one that tunnelform was started in.
fn the_own_namespace_gets_nothing() {
    let world = World::new();
    let (host, own) = (world.lone(), world.lone_as("own"));
    let before = own.seen();
    let apply = |arguments: &[&str]| own.inside(|| run(TUNNELFORM, arguments, FILE)).ok();
    apply(&["apply", "-", "--netns", &host.netns]);
    assert_same(&own.seen(), &before);
    assert_eq!(host.seen().tunnels().len(), 1);
    apply(&["apply", "-"]);
    assert_eq!(own.seen().tunnels().len(), 1);
    apply(&["destroy", "-", "--netns", &host.netns]);
    assert!(host.seen().tunnels().is_empty());
    assert_eq!(own.seen().tunnels().len(), 1);
}

/// A user who may not enter the namespace is told so.
fn missing_rights() {
    let world = World::new();
    let host = world.lone();
    let nobody = [
        "--reuid",
        "65534",
        "--regid",
        "65534",
        "--clear-groups",
        "--bounding-set=-all",
        TUNNELFORM,
    ];
    let arguments = [
        &nobody[..],
        &["apply", "-", "--dry-run", "--netns", &host.netns],
    ]
    .concat();
    run("setpriv", &arguments, FILE)
        .exits(1)
        .says(&host.netns)
        .says("not permitted");
}
