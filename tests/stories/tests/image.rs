//! The image: what its Dockerfile promises, and, where that is asked for, the image itself, built with buildah on a
//! Debian of Debian's own packages from the programs that cargo built.

#![expect(clippy::unwrap_used, reason = "a story fails where it is told")]

use std::process::Command;

use leviathan_stories::root;

#[test]
fn the_dockerfile_ends_in_a_system_without_a_compiler() {
    let dockerfile = std::fs::read_to_string(root().join("ops/docker/Dockerfile")).unwrap();
    let stages: Vec<&str> = dockerfile.lines().filter(|line| line.starts_with("FROM ")).collect();
    assert_eq!(
        stages,
        [
            "FROM rust:1.95-slim-bookworm AS build",
            "FROM debian:bookworm-slim AS system",
            "FROM system AS runtime-prebuilt",
            "FROM system AS runtime",
        ]
    );
    let version = concat!("org.opencontainers.image.version=\"", env!("CARGO_PKG_VERSION"), "\"");
    assert!(dockerfile.contains(version), "the label does not say {version}");
    // Of the stage that compiles, the two programs go on, and nothing else.
    let taken: Vec<&str> = dockerfile.lines().filter(|line| line.contains("--from=")).collect();
    assert_eq!(taken, ["COPY --from=build --chmod=0755 /out/leviathan /out/leviathanctl /usr/local/bin/"]);
    let system = &dockerfile[dockerfile.find("AS system").unwrap()..];
    assert!(system.contains("USER 65532:65532"));
    assert!(dockerfile.contains("cargo build --release --locked"));
    // The folders that a build must not see: large, and different from build to build.
    let ignored = std::fs::read_to_string(root().join(".dockerignore")).unwrap();
    assert_eq!(ignored.lines().collect::<Vec<_>>(), [".git", "target"]);
}

#[test]
fn the_image_holds_the_programs_and_no_privilege() {
    if let Some(reason) = unbuildable() {
        println!("skipped: the image was not built: {reason}");
        return;
    }
    let work = tempfile::tempdir().unwrap();
    let at = |name: &str| work.path().join(name).to_str().unwrap().to_owned();
    run("debootstrap", &["--variant=minbase", "bookworm", &at("debian")]);
    let buildah = |arguments: &[&str]| {
        let (store, state) = (at("store"), at("state"));
        let mut all = vec!["--storage-driver", "vfs", "--root", &store, "--runroot", &state];
        all.extend(arguments);
        run("buildah", &all)
    };

    let base = buildah(&["from", "scratch"]);
    buildah(&["add", &base, &at("debian"), "/"]);
    buildah(&["commit", "--quiet", &base, "docker.io/library/debian:bookworm-slim"]);

    let programs = at("programs");
    std::fs::create_dir(&programs).unwrap();
    for program in ["leviathan", "leviathanctl"] {
        let stripped = format!("{programs}/{program}");
        run(
            "strip",
            &["--strip-debug", "-o", &stripped, leviathan_stories::program(program).to_str().unwrap()],
        );
    }
    let dockerfile = root().join("ops/docker/Dockerfile");
    let build = ["bud", "--isolation", "chroot", "--pull-never", "--network", "host"];
    let what = ["--target", "runtime-prebuilt", "--timestamp", "1700000000", "-t", "leviathan:0.1.0", "-f"];
    buildah(&[&build[..], &what[..], &[dockerfile.to_str().unwrap(), &programs]].concat());

    let container = buildah(&["from", "--pull-never", "leviathan:0.1.0"]);
    let inside =
        |shell: &str| buildah(&["run", "--isolation", "chroot", &container, "--", "sh", "-c", shell]);
    assert_eq!(inside("id -u; id -g"), "65532\n65532");
    let versions = format!("leviathan {0}\nleviathanctl {0}", env!("CARGO_PKG_VERSION"));
    assert_eq!(inside("leviathan --version; leviathanctl --version"), versions);
    assert!(inside("git --version").starts_with("git version"));
    assert_eq!(inside("command -v cc gcc ld cargo rustc make python3 || true"), "");
    assert_eq!(inside("find / -xdev -perm /6000 -type f 2>/dev/null || true"), "");
    assert_eq!(inside("ls -d /etc/ssl/certs/ca-certificates.crt"), "/etc/ssl/certs/ca-certificates.crt");
    assert_eq!(inside("touch /usr/local/bin/leviathan /anything 2>/dev/null && echo writable || true"), "");
    let format = "{{.OCIv1.Config.User}} {{.OCIv1.Config.Entrypoint}}";
    assert_eq!(
        buildah(&["inspect", "--type", "image", "--format", format, "leviathan:0.1.0"]),
        "65532:65532 [leviathan]"
    );
}

/// Why the image cannot be built here, if it cannot.
fn unbuildable() -> Option<String> {
    if std::env::var_os("LEVIATHAN_TEST_IMAGE_BUILD").is_none() {
        return Some("it takes minutes; set LEVIATHAN_TEST_IMAGE_BUILD=1".to_owned());
    }
    for program in ["buildah", "debootstrap", "strip"] {
        if Command::new(program).arg("--version").output().is_err() {
            return Some(format!("{program} is not installed"));
        }
    }
    let user = Command::new("id").arg("-u").output().unwrap().stdout;
    (user.trim_ascii() != b"0").then(|| "debootstrap needs root".to_owned())
}

/// Runs a program to its end and returns what it said, without the end of the last line.
fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}
