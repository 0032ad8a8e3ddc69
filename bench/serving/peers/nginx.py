"""nginx as a plain reverse proxy: what a gateway costs that does nothing else. One worker, unless a bench wants more.

It checks no key, counts nothing and limits nobody. Its cache keeps answers to POST by their body, one request at a
time filling a key, as its manual describes.
"""

import os

from bench.serving.front import Front, Setup, free_ports, start, wait_ready
from bench.serving.peers.prefix import program


def front(setup: Setup) -> Front:
    """Round robin over the replicas, connections to them kept."""
    file, environment = program("nginx", ["nginx", "libpcre2-8-0"])
    [port] = free_ports(1)
    folder = setup.folder
    servers = "\n".join(f"    server 127.0.0.1:{each} max_fails=1 fail_timeout=1s;" for each in setup.ports)
    kept = (
        f"  proxy_cache_path {folder}/kept levels=1 keys_zone=kept:16m max_size=256m;" if setup.cached else ""
    )
    caching = (
        "    proxy_cache kept; proxy_cache_methods POST; proxy_cache_key $request_uri$request_body;\n"
        "    proxy_cache_valid 200 10m; proxy_cache_lock on; proxy_cache_lock_timeout 30s;\n"
        "    add_header X-Cache-Status $upstream_cache_status;"
        if setup.cached
        else ""
    )
    temporary = "\n".join(
        f"  {name}_temp_path {folder}/{name};"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;" if os.geteuid() == 0 else ""
    configuration = folder / "nginx.conf"
    configuration.write_text(f"""{user}
worker_processes {setup.processes};
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log error;
events {{ worker_connections 4096; }}
http {{
  access_log off;
{temporary}
{kept}
  client_max_body_size 16m;
  client_body_buffer_size 1m;
  keepalive_requests 1000000;
  tcp_nodelay on;
  upstream replicas {{
{servers}
    keepalive 128;
    keepalive_requests 1000000;
  }}
  server {{
    listen 127.0.0.1:{port} backlog=2048;
    location / {{
      proxy_pass http://replicas;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering {"on" if setup.cached else "off"};
      proxy_next_upstream error timeout non_idempotent;
{caching}
    }}
  }}
}}
""")
    log = folder / "log"
    process = start(
        [str(file), "-c", str(configuration), "-p", str(folder), "-e", str(folder / "error.log")],
        log=log,
        environment=environment,
    )
    wait_ready(f"http://127.0.0.1:{port}/", process, log)
    return Front(name="nginx", port=port, process=process, log=log)
