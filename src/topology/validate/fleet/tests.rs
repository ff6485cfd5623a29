use crate::topology::testing::{check, check_below, problems};

/// Three nodes in flow style, with more keys for the first.
const THREE: &str = "name: t
nodes:
  a: {underlay: 192.0.2.1, subnets: [10.1.0.0/24]}
  b: {underlay: 192.0.2.2, subnets: [10.2.0.0/24]}
  c: {underlay: 192.0.2.3, subnets: [10.3.0.0/24]}
";

#[test]
fn nodes_that_are_named_are_there() {
    check_below(
        THREE,
        &[
            (
                "tunnels: {x: {remote: »d}}",
                &["tunnels.x.remote: no node is called \"d\""],
            ),
            (
                "tunnels: {x: {local: »d}}",
                &["tunnels.x.local: no node is called \"d\""],
            ),
            (
                "defaults: {local: »d}",
                &["defaults.local: no node is called \"d\""],
            ),
            (
                "meshes: {m: {members: [a, »d]}}",
                &["meshes.m.members[1]: no node is called \"d\""],
            ),
            (
                "meshes: {m: {topology: {hub: [»d, a]}}}",
                &["meshes.m.topology.hub[0]: no node is called \"d\""],
            ),
            (
                "meshes: {m: {topology: {edges: [[a, b], [»d, c]]}}}",
                &["meshes.m.topology.edges[1][0]: no node is called \"d\""],
            ),
            ("meshes: {m: {members: [a, b], topology: {hub: [a]}}}", &[]),
        ],
    );
    check(&[
        (
            "nodes:\n  aa: {underlay: 192.0.2.1, tunnels: {x: {remote: »ab}}}\n  ac: {defaults: {remote: »ad}}",
            &[
                "nodes.aa.tunnels.x.remote: no node is called \"ab\"",
                "nodes.ac.defaults.remote",
            ],
        ),
        // An address of somebody else needs no node.
        (
            "nodes: {a: {underlay: 192.0.2.1, tunnels: {x: {remote: 198.51.100.1}}}}",
            &[],
        ),
        (
            "tunnels: {x: {remote: »b}}",
            &["expected an IPv4 address or `any`, found \"b\""],
        ),
    ]);
    let help =
        problems("name: t\nnodes: {paris: {underlay: 192.0.2.1}}\ntunnels: {x: {remote: pari}}");
    assert_eq!(help.list[0].help.as_deref(), Some("did you mean `paris`?"));
}

#[test]
fn nodes_can_be_reached_by_name() {
    check(&[
        (
            "nodes:\n  a: {underlay: 192.0.2.1, tunnels: {x: {remote: »b}}}\n  b: {underlay: {device: eth0}}",
            &["b looks its underlay address up on itself"],
        ),
        (
            "nodes:\n  a: {underlay: 192.0.2.1, tunnels: {x: {remote: »b}}}\n  b: {}",
            &["b has no `underlay`"],
        ),
        (
            "nodes:\n  b: {tunnels: {x: {local: »b, remote: 198.51.100.1}}}",
            &["b has no `underlay`"],
        ),
        (
            "defaults: {remote: »b}\nnodes: {a: {underlay: 192.0.2.1}, b: {underlay: {device: eth0}}}",
            &["defaults.remote: b looks its underlay address up on itself"],
        ),
        // Itself, it can look it up.
        (
            "nodes:\n  b: {underlay: {device: eth0}, tunnels: {x: {local: b, remote: 198.51.100.1}}}",
            &[],
        ),
    ]);
}

#[test]
fn an_underlay_address_is_one_hosts() {
    check(&[
        (
            "nodes: {a: {underlay: 192.0.2.1}, b: {underlay: »192.0.2.1}}",
            &["nodes.b.underlay: 192.0.2.1 is a's underlay address, too"],
        ),
        (
            "nodes: {a: {underlay: 192.0.2.1/24}, b: {»underlay: {address: 192.0.2.1, device: eth0}}}",
            &["192.0.2.1 is a's underlay address, too"],
        ),
        (
            "nodes: {a: {underlay: 192.0.2.1/24}, b: {underlay: 192.0.2.2/24}}",
            &[],
        ),
        (
            "nodes: {a: {underlay: {device: eth0}}, b: {underlay: {device: eth0}}}",
            &[],
        ),
        (
            "nodes: {a: {»underlay: {}}}",
            &["neither an address nor a device"],
        ),
        (
            "nodes: {a: {underlay: »\"2001:db8::1\"}}",
            &["is an IPv6 address"],
        ),
        (
            "nodes: {a: {underlay: »224.0.0.1}}",
            &["is a multicast address"],
        ),
        (
            "nodes: {a: {underlay: »127.0.0.1}}",
            &["is a loopback address"],
        ),
        (
            "nodes: {a: {underlay: »0.0.0.0}}",
            &["is the unspecified address"],
        ),
        (
            "nodes: {a: {underlay: »192.0.2.0/24}}",
            &["is its network's own address"],
        ),
        (
            "nodes: {a: {underlay: »192.0.2.255/24}}",
            &["is its network's broadcast address"],
        ),
        (
            "nodes: {a: {underlay: 192.0.2.0/31}, b: {underlay: 192.0.2.255/32}}",
            &[],
        ),
    ]);
}

#[test]
fn subnets_are_each_nodes_own() {
    check_below(
        "name: t\nnodes:\n  a: {subnets: [10.1.0.0/24, 10.5.0.0/16]}\n",
        &[
            (
                "  b: {subnets: [10.2.0.0/24, »10.1.0.128/25]}",
                &["nodes.b.subnets[1]: 10.1.0.128/25 of b overlaps 10.1.0.0/24 of a"],
            ),
            (
                "  b: {subnets: [»10.1.0.0/24]}",
                &["nodes.b.subnets[0]: 10.1.0.0/24 of b overlaps 10.1.0.0/24 of a"],
            ),
            // Whoever is wider is the first, wherever it's written.
            (
                "  b: {subnets: [10.2.0.0/24, 10.1.1.0/24, 10.4.0.0/16, 10.6.0.0/16]}",
                &[],
            ),
            (
                "  b: {subnets: [10.2.0.0/24, »10.2.0.0/25, »10.2.0.200/32]}",
                &[
                    "10.2.0.0/25 of b overlaps 10.2.0.0/24 of b",
                    "10.2.0.200/32 of b overlaps",
                ],
            ),
            (
                "  b: {subnets: [»224.1.0.0/16]}",
                &["224.1.0.0/16 is a multicast network"],
            ),
            (
                "  b: {subnets: [»\"2001:db8::/64\"]}",
                &["is an IPv6 network"],
            ),
            ("  b: {subnets: [»10.2.0.1/24]}", &["has host bits set"]),
        ],
    );
    check(&[(
        "nodes:\n  a: {subnets: [»10.1.0.0/24]}\n  b: {subnets: [10.1.0.0/16]}",
        &["10.1.0.0/24 of a overlaps 10.1.0.0/16 of b"],
    )]);
    let found =
        problems("name: t\nnodes: {a: {subnets: [10.1.0.0/24]}, b: {subnets: [10.1.0.0/24]}}");
    let (place, label) = found.list[0].related.clone().unwrap();
    assert_eq!(label, "`nodes.a.subnets[0]` is the first");
    assert_eq!(&found.files[0].text[place.start..place.end], "10.1.0.0/24");
}

#[test]
fn the_overlay_is_apart_from_the_underlay() {
    check(&[
        (
            "nodes:\n  a: {underlay: »10.2.0.7, subnets: [10.1.0.0/24]}\n  b: {underlay: 192.0.2.2, subnets: [10.2.0.0/24]}",
            &[
                "nodes.a.underlay: the underlay address of a, 10.2.0.7, is in the overlay 10.2.0.0/24 of b",
            ],
        ),
        (
            "nodes:\n  a: {underlay: »10.1.0.7, subnets: [10.1.0.0/24]}",
            &["the underlay address of a, 10.1.0.7, is in the overlay 10.1.0.0/24 of a"],
        ),
        (
            "nodes:\n  a: {underlay: »10.2.0.7/16, subnets: [10.1.0.0/24]}\n  b: {subnets: [10.2.9.0/24]}",
            &["the underlay network of a, 10.2.0.0/16, holds the overlay 10.2.9.0/24 of b"],
        ),
        (
            "nodes:\n  a: {underlay: 10.2.0.7/24, subnets: [10.1.0.0/24]}\n  b: {subnets: [10.2.1.0/24, 10.3.0.0/24]}",
            &[],
        ),
    ]);
}

#[test]
fn a_mesh_has_two_members() {
    check_below(
        THREE,
        &[
            (
                "meshes: {m: {»members: [a]}}",
                &["meshes.m.members: a mesh joins two members at least, found a alone"],
            ),
            ("meshes: {m: {»members: []}}", &["found none"]),
            ("meshes: {m: {»members: {role: edge}}}", &["found none"]),
            ("meshes: {m: {members: [a, b]}}", &[]),
            ("meshes: {m: {members: [a, »d]}}", &["no node is called"]),
        ],
    );
    check(&[
        (
            "meshes: {»m: {}}",
            &["a mesh joins two members at least, found none"],
        ),
        (
            "nodes:\n  a: {underlay: 192.0.2.1, labels: {r: x}}\n  b: {underlay: 192.0.2.2, labels: {r: x, s: z}}\nmeshes:\n  m: {members: {r: x}}\n  n: {style: point-to-point, »members: {r: x, s: z}}",
            &["meshes.n.members: a mesh joins two members at least, found b alone"],
        ),
    ]);
}

#[test]
fn members_know_one_anothers_underlay() {
    check_below(
        "name: t\nmeshes: {m: {}}\nnodes:\n  a: {underlay: 192.0.2.1}\n",
        &[
            (
                "  »b: {subnets: [10.1.0.0/24]}",
                &[
                    "nodes.b: b is a member of the mesh m, and the others can't know its underlay address",
                ],
            ),
            (
                "  b: {»underlay: {device: eth0}}",
                &["nodes.b.underlay: b is a member"],
            ),
            ("  b: {underlay: {device: eth0, address: 192.0.2.2}}", &[]),
            // Said once.
            ("  b: {»underlay: {}}", &["neither an address nor a device"]),
            ("  b: {underlay: »\"2001:db8::1\"}", &["is an IPv6 address"]),
        ],
    );
}

#[test]
fn edges_join_members() {
    check_below(
        THREE,
        &[
            (
                "meshes: {m: {topology: {»hub: []}}}",
                &["a hub-and-spoke mesh needs a hub"],
            ),
            (
                "meshes: {m: {members: [a, b], topology: {hub: [»c]}}}",
                &["meshes.m.topology.hub[0]: the hub c is no member"],
            ),
            (
                "meshes: {m: {members: [a, b], topology: {edges: [[a, b], [a, »c]]}}}",
                &["meshes.m.topology.edges[1][1]: c is no member"],
            ),
            (
                "meshes: {m: {topology: {edges: [[a, b], »[a, a], [b, c]]}}}",
                &["edges[1]: an edge from a to itself"],
            ),
            (
                "meshes: {m: {topology: {edges: [[a, b], »[b, a], [b, c]]}}}",
                &["edges[1]: the edge of b and a is given twice"],
            ),
            (
                "meshes: {m: {»topology: {edges: [[a, b]]}}}",
                &["warning: no edges lead from a to c"],
            ),
            (
                "meshes: {m: {»topology: {edges: []}}}",
                &["warning: no edges lead from a to b"],
            ),
            ("meshes: {m: {topology: {edges: [[a, b], [c, b]]}}}", &[]),
            ("meshes: {m: {topology: {hub: [a, b]}}}", &[]),
            (
                "meshes: {m: {»topology: {hub: [a], edges: [[a, b]]}}}",
                &["one of them"],
            ),
            (
                "meshes: {m: {topology: {edges: [»[a, b, c], »[a]]}}}",
                &["a list of 2, found one of 3", "found one of 1"],
            ),
        ],
    );
}

#[test]
fn devices_have_names() {
    check_below(
        THREE,
        &[
            (
                "meshes: {»a-very-long-name: {}}",
                &["is 16 bytes long: the kernel allows 15"],
            ),
            ("meshes: {a-long-name-too: {}}", &[]),
            (
                "meshes: {»tunl0: {}}",
                &["tunl0 is the kernel's own device"],
            ),
            (
                "meshes: {m: {interface: »lo}}",
                &["meshes.m.interface: lo is the kernel's own device"],
            ),
            ("meshes: {a-very-long-name: {interface: ipip-m}}", &[]),
        ],
    );
    let long =
        "name: t\nnodes: {long-node-1: {underlay: 192.0.2.1}, b: {underlay: 192.0.2.2}}\nmeshes:\n";
    check_below(
        long,
        &[
            (
                "  m: {style: point-to-point, interface: »seven--}",
                &["\"seven--\" leaves no room for the name of long-node-1"],
            ),
            ("  m: {style: point-to-point, interface: six---}", &[]),
            // As many bytes as there are.
            ("  m: {style: point-to-point, interface: four}", &[]),
        ],
    );
}

#[test]
fn links_have_addresses_of_their_own() {
    let ends = "name: t\nnodes:\n  a: {underlay: 192.0.2.1, subnets: [10.1.0.0/24]}\n  b: {underlay: 198.51.100.1}\n  c: {underlay: 198.51.100.2/24}\nmeshes:\n";
    check_below(
        ends,
        &[
            (
                "  m: {link_network: »10.9.0.0/16}",
                &["a multipoint mesh has no links"],
            ),
            (
                "  m: {style: point-to-point, link_network: »10.9.0.0/24}",
                &["a and b would both have the link address 10.9.0.1: the last 8 bits"],
            ),
            (
                "  m: {style: point-to-point, members: [a, c], link_network: 10.9.0.0/24}",
                &[],
            ),
            (
                "  m: {style: point-to-point, link_network: 10.8.0.0/15}",
                &[],
            ),
            (
                "  m: {style: point-to-point, link_network: »10.0.0.0/8}",
                &["10.0.0.0/8 overlaps 10.1.0.0/24 of a"],
            ),
            (
                "  m: {style: point-to-point, members: [a, c], link_network: »10.1.0.128/25}",
                &["overlaps 10.1.0.0/24 of a"],
            ),
            (
                "  m: {style: point-to-point, members: [a, c], link_network: »198.51.100.128/25}",
                &["198.51.100.128/25 overlaps the underlay of c"],
            ),
            (
                "  m: {style: point-to-point, members: [a, c], link_network: »192.0.0.0/16}",
                &["192.0.0.0/16 overlaps the underlay of a"],
            ),
        ],
    );
}

#[test]
fn a_mesh_decides_for_itself() {
    check_below(
        THREE,
        &[
            (
                "meshes: {m: {tunnel: {local: »192.0.2.1}}}",
                &["the mesh gives its tunnels their `local`"],
            ),
            ("meshes: {m: {tunnel: {remote: »any}}}", &["their `remote`"]),
            (
                "meshes: {m: {tunnel: {»addresses: [10.9.0.1/32]}}}",
                &["their `addresses`"],
            ),
            (
                "meshes: {m: {tunnel: {»routes: [10.9.0.0/16]}}}",
                &["their `routes`"],
            ),
            (
                "meshes: {m: {tunnel: {ttl: 64, mtu: 1400, mode: any, device: eth0}}}",
                &[],
            ),
        ],
    );
}

#[test]
fn options_of_a_meshs_tunnels_are_checked() {
    for style in ["multipoint", "point-to-point"] {
        let head = format!("{THREE}meshes:\n  m:\n    style: {style}\n");
        check_below(
            &head,
            &[
                (
                    "    tunnel: {ttl: 64, pmtudisc: »false}",
                    &["meshes.m.tunnel.pmtudisc: `pmtudisc: false` with a fixed"],
                ),
                (
                    "    tunnel: {ttl: 64}\ndefaults: {pmtudisc: »false}",
                    &["defaults.pmtudisc"],
                ),
                (
                    "    tunnel: {ttl: 64, pmtudisc: true}\ndefaults: {pmtudisc: false}",
                    &[],
                ),
                ("    tunnel: {ttl: 64}", &[]),
            ],
        );
    }
    // The options of one node.
    check(&[(
        "nodes:\n  a: {underlay: 192.0.2.1, defaults: {pmtudisc: »false}}\n  b: {underlay: 192.0.2.2}\nmeshes: {m: {style: point-to-point, tunnel: {ttl: 64}}}",
        &["nodes.a.defaults.pmtudisc"],
    )]);
}

#[test]
fn meshes_keep_out_of_one_anothers_way() {
    let p2p = "style: point-to-point";
    let cases: &[(&str, &str, &[&str])] = &[
        (
            "one: {}",
            "»two: {}",
            &["meshes.two: a is in two multipoint meshes"],
        ),
        (
            "one: {members: [a, b]}",
            "»two: {members: [b, c]}",
            &["b is in two multipoint meshes"],
        ),
        (
            "one: {tunnel: {device: eth0}}",
            "two: {tunnel: {device: eth1}, routes: false}",
            &[],
        ),
        (
            "one: {}",
            &format!("»two: {{{p2p}}}"),
            &["a and b are in two meshes, and both route"],
        ),
        ("one: {}", &format!("two: {{{p2p}, routes: false}}"), &[]),
        (
            "one: {members: [a, b]}",
            &format!("two: {{{p2p}, members: [b, c]}}"),
            &[],
        ),
        (
            &format!("one: {{{p2p}}}"),
            &format!("»two: {{{p2p}, routes: false}}"),
            &["a and b are joined by two point-to-point meshes"],
        ),
        (
            &format!("one: {{{p2p}, topology: {{edges: [[a, b], [b, c]]}}}}"),
            &format!(
                "two: {{{p2p}, topology: {{edges: [[a, c]]}}, members: [a, c], routes: false}}"
            ),
            &[],
        ),
        (
            &format!("one: {{{p2p}, members: [a, b], interface: tun}}"),
            &format!("two: {{{p2p}, members: [b, c], interface: »tun-}}"),
            &["devices of the meshes one and two could have the same name"],
        ),
        (
            &format!("one: {{{p2p}, members: [a, b], interface: tun}}"),
            &format!("two: {{{p2p}, members: [b, c], interface: tun}}"),
            &[],
        ),
        (
            &format!("one: {{{p2p}, members: [a, b], interface: x}}"),
            "two: {members: [b, c], interface: »xa}",
            &["could have the same name: they are called \"x\" and \"xa\""],
        ),
        (
            &format!("one: {{{p2p}, members: [a, b], interface: x}}"),
            "two: {members: [b, c], interface: xc}",
            &[],
        ),
        (
            "one: {members: [a, b], blackhole: false}",
            &format!("»two: {{{p2p}, members: [b, c]}}"),
            &["differ in what becomes of packets to unused addresses of b"],
        ),
        (
            "one: {members: [a, b], local: br0}",
            &format!("two: {{{p2p}, members: [b, c], local: br0, blackhole: false}}"),
            &[],
        ),
    ];
    for (one, two, expected) in cases {
        check_below(THREE, &[(&format!("meshes:\n  {one}\n  {two}"), expected)]);
    }
}

#[test]
fn names_of_tunnels_are_given_once() {
    check_below(
        THREE,
        &[
            (
                "tunnels: {»m: {local: 198.51.100.1}}\nmeshes: {m: {}}",
                &["tunnels.m: the mesh m makes a device called m on a"],
            ),
            (
                "tunnels: {»m-a: {remote: 198.51.100.1}}\nmeshes: {m: {style: point-to-point}}",
                &["tunnels.m-a: the mesh m makes a device called m-a on b"],
            ),
            (
                "tunnels: {m-c: {remote: 198.51.100.1}}\nmeshes: {m: {style: point-to-point, members: [a, b]}}",
                &[],
            ),
            (
                "tunnels: {m-: {remote: 198.51.100.1}}\nmeshes: {m: {style: point-to-point}}",
                &[],
            ),
        ],
    );
    check(&[
        (
            "tunnels: {x: {remote: 198.51.100.1}}\nnodes: {a: {tunnels: {»x: {remote: 198.51.100.2}}}}",
            &["nodes.a.tunnels.x: tunnel x is given for every node already"],
        ),
        (
            "nodes:\n  a: {underlay: 192.0.2.1, tunnels: {»m-b: {remote: 198.51.100.2}, m-a: {remote: 198.51.100.3}}}\n  b: {underlay: 192.0.2.2}\nmeshes: {m: {style: point-to-point}}",
            &["nodes.a.tunnels.m-b: the mesh m makes a device called m-b on a"],
        ),
    ]);
}

#[test]
fn a_tunnel_between_nodes_has_two_ends() {
    let nodes = |a: &str, b: &str| {
        format!(
            "nodes:\n  a: {{underlay: 192.0.2.1, tunnels: {{{a}}}}}\n  b: {{underlay: 192.0.2.2, tunnels: {{{b}}}}}\n  c: {{underlay: 192.0.2.3}}\n"
        )
    };
    let cases: &[(&str, &str, &[&str])] = &[
        (
            "»x: {remote: b}",
            "",
            &["nodes.a.tunnels.x: b has no tunnel that takes packets from 192.0.2.1"],
        ),
        (
            "»x: {remote: 192.0.2.2}",
            "",
            &["b has no tunnel that takes packets from 192.0.2.1"],
        ),
        ("x: {remote: b}", "y: {remote: a}", &[]),
        ("x: {remote: b}", "y: {local: b, remote: any}", &[]),
        (
            "»x: {local: 198.51.100.9, remote: b}",
            "»y: {remote: a}",
            &[
                "no tunnel that takes packets from 198.51.100.9",
                "a has no tunnel that takes",
            ],
        ),
        (
            "x: {local: 198.51.100.9, remote: b}",
            "y: {remote: 198.51.100.9}",
            &[],
        ),
        (
            "»x: {remote: b}",
            "»y: {remote: c}",
            &["b has no tunnel that takes", "c has no tunnel that takes"],
        ),
        (
            "x: {local: a, remote: »a}",
            "",
            &["`local` and `remote` are both 192.0.2.1"],
        ),
        (
            "x: {remote: b, mode: mplsip}",
            "»y: {remote: a}",
            &["nodes.b.tunnels.y: the two ends of this tunnel carry different things"],
        ),
        ("x: {remote: b, mode: any}", "y: {remote: a}", &[]),
        (
            "x: {remote: b, mtu: 1400}",
            "»y: {remote: a, mtu: 1480}",
            &[
                "warning: nodes.b.tunnels.y: the two ends of this tunnel have different MTUs: 1480 and 1400",
            ],
        ),
        ("x: {remote: b, mtu: 1400}", "y: {remote: a}", &[]),
        (
            "»x: {remote: b, mtu: 1400}",
            "y: {local: b, mtu: 1480}",
            &["warning: nodes.a.tunnels.x: the two ends of this tunnel have different MTUs"],
        ),
    ];
    for (a, b, expected) in cases {
        check(&[(&nodes(a, b), expected)]);
    }
    check(&[
        // A mesh's device takes what a hand-made tunnel sends.
        (
            "nodes:\n  a: {underlay: 192.0.2.1, tunnels: {x: {remote: b}}}\n  b: {underlay: 192.0.2.2}\n  c: {underlay: 192.0.2.3}\nmeshes: {m: {members: [b, c]}}",
            &[],
        ),
        (
            "tunnels: {»x: {remote: b}}\nnodes: {a: {underlay: 192.0.2.1}, b: {underlay: 192.0.2.2}}",
            &[
                "b has no tunnel that takes packets from 192.0.2.1",
                "on b itself the tunnel would end",
            ],
        ),
        (
            "nodes:\n  a: {underlay: 192.0.2.1, tunnels: {»x: {local: a, remote: b}}}\n  b: {underlay: 192.0.2.2, tunnels: {y: {remote: a}}}\nmeshes: {m: {style: point-to-point, routes: false}}",
            &["nodes.a.tunnels.x: the mesh m joins a and b already"],
        ),
        // Bound to another device, the kernel can tell it apart.
        (
            "nodes:\n  a: {underlay: 192.0.2.1, tunnels: {x: {local: a, remote: b, device: eth1}}}\n  b: {underlay: 192.0.2.2, tunnels: {y: {remote: a}}}\nmeshes: {m: {style: point-to-point, routes: false}}",
            &[],
        ),
    ]);
}

#[test]
fn routes_of_a_mesh_are_not_written_again() {
    check_below(
        THREE,
        &[
            (
                "meshes: {m: {}}\nroutes: [»{to: 10.2.0.0/24, device: eth0}]",
                &["routes[0]: the mesh m makes a route 10.2.0.0/24, to b, already"],
            ),
            (
                "meshes: {m: {}}\nroutes: [{to: 10.2.0.0/24, device: eth0, metric: 5}, {to: 10.2.0.0/25, device: eth0}]",
                &[],
            ),
            (
                "meshes: {m: {}}\nroutes: [{to: 10.2.0.0/24, device: eth0, table: 5}]",
                &[],
            ),
            (
                "meshes: {m: {members: [a, c]}}\nroutes: [{to: 10.2.0.0/24, device: eth0}]",
                &[],
            ),
            (
                "meshes: {m: {routes: false}}\nroutes: [{to: 10.2.0.0/24, device: eth0}]",
                &[],
            ),
            (
                "meshes: {m: {}}\ntunnels: {x: {remote: 198.51.100.1, routes: [»10.2.0.0/24]}}",
                &["tunnels.x.routes[0]: the mesh m makes a route"],
            ),
        ],
    );
    check(&[(
        "nodes:\n  a: {underlay: 192.0.2.1, routes: [»{to: 10.2.0.0/24, device: eth0}]}\n  b: {underlay: 192.0.2.2, subnets: [10.2.0.0/24], routes: [{to: 10.2.0.0/24, device: br0}]}\nmeshes: {m: {}}",
        &["nodes.a.routes[0]: the mesh m makes a route"],
    )]);
}

/// What a host's rules find is shown where the file has it.
#[test]
fn a_hosts_problems_stand_at_their_place() {
    let two = "nodes:\n  a: {underlay: 192.0.2.1, subnets: [10.1.0.0/24]";
    let head = |more: &str| {
        format!("{two}{more}}}\n  b: {{underlay: 192.0.2.2, subnets: [10.2.0.0/24]}}\n")
    };
    let cases: &[(&str, &str, &[&str])] = &[
        (
            ", tunnels: {x: {remote: 198.51.100.1, ttl: 64, pmtudisc: »false}}",
            "",
            &["nodes.a.tunnels.x.pmtudisc"],
        ),
        (
            ", tunnels: {x: {remote: »224.0.0.1}}",
            "",
            &["nodes.a.tunnels.x.remote: 224.0.0.1 is a multicast"],
        ),
        (
            ", defaults: {ttl: 64, pmtudisc: »false}, tunnels: {x: {remote: 198.51.100.1}}",
            "",
            &["nodes.a.defaults.pmtudisc"],
        ),
        (
            ", tunnels: {x: {remote: 198.51.100.1, ttl: 64}}",
            "defaults: {pmtudisc: »false}",
            &["defaults.pmtudisc"],
        ),
        (
            ", addresses: {lo: [10.9.0.1, »224.0.0.1]}",
            "",
            &["nodes.a.addresses.lo[1]"],
        ),
        (
            ", addresses: {lo: [»10.9.0.1]}",
            "addresses: {lo: [10.9.0.1]}",
            &["nodes.a.addresses.lo[0]: address 10.9.0.1/32 on lo is given twice"],
        ),
        (
            ", addresses: {lo: [10.9.0.1]}",
            "addresses: {lo: [»224.0.0.1, 10.9.0.2]}",
            &["addresses.lo[0]"],
        ),
        (
            ", routes: [»10.9.0.0/16]",
            "",
            &["nodes.a.routes[0]: route 10.9.0.0/16 leads nowhere"],
        ),
        (
            ", routes: [»10.7.0.0/16]",
            "routes: [»10.9.0.0/16, {to: 10.8.0.0/16, device: eth0}]",
            &[
                "nodes.a.routes[0]",
                "routes[0]: route 10.9.0.0/16 leads nowhere",
            ],
        ),
        (
            ", routes: [{to: 10.9.0.0/16, device: eth0, mtu: »1}]",
            "routes: [{to: 10.8.0.0/16, device: eth0}]",
            &["nodes.a.routes[0].mtu"],
        ),
        (
            ", defaults: {»routes: [10.9.0.0/16]}",
            "",
            &["nodes.a.defaults.routes: `routes` can't be a default"],
        ),
        (
            ", tunnels: {tun1: {local: 198.51.100.1}}, addresses: {»tun1: [10.9.0.1/32]}",
            "",
            &["nodes.a.addresses.tun1: tun1 is a tunnel"],
        ),
        (
            ", tunnels: {»x: {local: 192.0.2.1}}",
            "meshes: {m: {}}",
            &["nodes.a.tunnels.x: two tunnels with the same (local, remote, device)"],
        ),
        (
            ", addresses: {m: [»224.0.0.1]}",
            "meshes: {m: {}}",
            &["nodes.a.addresses.m[0]: 224.0.0.1 is a multicast"],
        ),
        (", addresses: {m: [10.9.0.1/24]}", "meshes: {m: {}}", &[]),
        (
            ", addresses: {m-b: [»224.0.0.1]}",
            "meshes: {m: {style: point-to-point}}",
            &["nodes.a.addresses.m-b[0]"],
        ),
        (
            "",
            "addresses: {m: [»224.0.0.1/32]}\nmeshes: {m: {}}",
            &["addresses.m[0]"],
        ),
    ];
    for (a, more, expected) in cases {
        check(&[(&(head(a) + more), expected)]);
    }
    check(&[
        // A broadcast address of a network that the file knows, as a node's underlay address.
        (
            "addresses: {eth9: [192.0.2.9/30]}\nnodes: {a: {underlay: »192.0.2.11}, b: {underlay: 192.0.2.2}}\nmeshes: {m: {}}",
            &["nodes.a.underlay: 192.0.2.11 is a broadcast address"],
        ),
        // What comes from a subnet.
        (
            "nodes:\n  a: {underlay: 192.0.2.1, »subnets: [10.1.0.0/24], routes: [{to: 10.1.0.0/24, device: eth0, metric: 4294967295}]}\n  b: {underlay: 192.0.2.2}\nmeshes: {m: {}}",
            &[],
        ),
        (
            "nodes:\n  a: {underlay: 192.0.2.1, »subnets: [0.0.0.0/32]}\n  b: {underlay: 192.0.2.2}\nmeshes: {m: {}}",
            &["nodes.a.subnets: 0.0.0.0 is the unspecified address"],
        ),
    ]);
}

/// An error costs its own entry, and no rule is led astray by what is missing.
#[test]
fn errors_in_nodes_have_no_followers() {
    check(&[
        (
            "nodes: »5\ntunnels: {x: {remote: b}}\nmeshes: {m: {}}",
            &["expected a mapping"],
        ),
        (
            "nodes: {a: »5, b: {underlay: 192.0.2.2, tunnels: {x: {remote: a}}}}\nmeshes: {m: {}}",
            &["nodes.a: expected a mapping"],
        ),
        (
            "nodes:\n  a: {underlay: »300.0.0.1, subnets: [»10.1.0.1/24], labels: {r: »1}, routes: [{to: »x}]}\n  b: {underlay: 192.0.2.2, tunnels: {x: {remote: a}}}\nmeshes: {m: {members: {r: x}}}",
            &[
                "nodes.a.underlay",
                "nodes.a.subnets[0]",
                "nodes.a.labels.r",
                "nodes.a.routes[0].to",
            ],
        ),
        (
            "nodes:\n  a: {underlay: 192.0.2.1, tunnels: {x: {remote: »1.2.3}}}\n  b: {underlay: 192.0.2.2, tunnels: {y: {remote: a}}}",
            &["nodes.a.tunnels.x.remote"],
        ),
        (
            "tunnels: {x: {remote: a, ttl: »999}}\nnodes:\n  a: {underlay: 192.0.2.1, tunnels: {y: {remote: b}}}\n  b: {underlay: 192.0.2.2}",
            &["tunnels.x.ttl"],
        ),
        // Those of addresses and routes concern nobody else.
        (
            "nodes:\n  a: {underlay: 192.0.2.1, addresses: {lo: [»x]}, routes: [»y]}\n  b: {underlay: »192.0.2.1}",
            &[
                "nodes.a.addresses.lo[0]",
                "nodes.a.routes[0]",
                "is a's underlay address, too",
            ],
        ),
        (
            "nodes: {a: {underlay: 192.0.2.1, addresses: {m: [10.9.0.1/32]}}, b: {underlay: 192.0.2.2, »bogus: 1}}\nmeshes: {m: {style: »ring, direct_routing: »5}}",
            &[
                "unknown key \"bogus\"",
                "meshes.m.style",
                "meshes.m.direct_routing",
            ],
        ),
        (
            "nodes: {a: {routes: [»x, »{to: 10.0.0.0/8}]}}",
            &[
                "nodes.a.routes[0]",
                "nodes.a.routes[1]: route 10.0.0.0/8 leads nowhere",
            ],
        ),
        (
            "nodes: {a: {subnets: [»x, 10.1.0.0/16]}, b: {subnets: [10.1.0.0/16]}}",
            &["nodes.a.subnets[0]"],
        ),
        (
            "nodes: {»any: {}, »1: {}, »a b: {}}",
            &["expected a name", "expected a name", "expected a name"],
        ),
    ]);
}
