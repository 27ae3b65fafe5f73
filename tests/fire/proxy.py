# SPDX-License-Identifier: Apache-2.0
"""Behind nginx with its defaults: tokens arrive one by one, not in lumps, and who leaves frees the blocks.

nginx buffers answers unless told not to; X-Accel-Buffering: no tells it.  The same stream is read straight from the
server and through nginx, with and without that header (nginx can be made to ignore it): the last shows what it is for.
How often a client finds something to read depends on the machine, so it is compared.
"""

import argparse
import pathlib
import shutil
import subprocess
import tempfile
import time

from common import Job, Verdict, connect, endless, leave, post, quantile
from ports import free_port

CONF = """daemon off; pid {dir}/pid; error_log {dir}/error; worker_processes 1;
events {{ worker_connections 1000; }}
http {{
    access_log off;
    client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u;
    scgi_temp_path {dir}/s;
    server {{ listen 127.0.0.1:{plain}; location / {{ proxy_pass http://127.0.0.1:{port}; }} }}
    server {{ listen 127.0.0.1:{deaf};
              location / {{ proxy_pass http://127.0.0.1:{port}; proxy_ignore_headers X-Accel-Buffering; }} }}
}}
"""


def stream(port, tokens):
    """Seconds from the request at which each event was read."""
    at, seen, raw = time.perf_counter(), [], b""
    with connect(port, post(endless(max_tokens=tokens), headers=("Connection: close",))) as s:
        while piece := s.recv(65536):
            raw += piece
            seen += [time.perf_counter() - at] * (raw.count(b'"text":') - len(seen))
    return seen, b"data: [DONE]" in raw


def tell(v, what, port, a):
    """Moments at which there was something to read, summed over the rounds."""
    seen = [stream(port, a.tokens) for _ in range(a.rounds)]
    moments, events = sum(len(set(times)) for times, _ in seen), sum(len(times) for times, _ in seen)
    print(f"{what}: {events} events at {moments} moments, the first after {1e3 * quantile([x[0][0] for x in seen], 0.5):.1f} ms (median)")
    v.equal(f"{what}: came to its end", all(done for _, done in seen), True)
    return moments


def gone(job, port, n):
    """ms from the close at nginx to everything free."""
    times = []
    for i in range(n):
        s = connect(port, post(endless()))
        raw = b""
        while raw.count(b'"text":') < 5:
            raw += s.recv(65536)
        at = time.perf_counter()
        leave(s, ("fin", "rst")[i % 2])
        while (m := job.metrics())["num_requests_running"] != 0 or m["kv_cache_usage_perc"] != 0:
            if time.perf_counter() - at > 20:
                raise TimeoutError("blocks are still in use after 20 s")
        times.append(1e3 * (time.perf_counter() - at))
    return times


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--tokens", type=int, default=400, help="of a stream (default 400)")
    p.add_argument("--rounds", type=int, default=5, help="streams each (default 5)")
    p.add_argument("-n", type=int, default=100, help="clients that leave (default 100)")
    a = p.parse_args()
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if nginx is None:
        print("nginx is not installed: skipped")
        return 0
    v = Verdict("behind nginx")
    with tempfile.TemporaryDirectory(prefix="fire-") as d, Job() as job:
        plain, deaf, conf = free_port(), free_port(), pathlib.Path(d) / "conf"
        conf.write_text(CONF.format(dir=d, plain=plain, deaf=deaf, port=job.port), encoding="ascii")
        with subprocess.Popen([nginx, "-c", str(conf), "-e", f"{d}/error"]) as proxy:
            try:
                time.sleep(1)
                straight, through, lumps = (tell(v, what, port, a) for what, port in (
                    ("straight", job.port), ("through nginx", plain), ("through nginx that ignores X-Accel-Buffering", deaf)))
                v.at_least("moments of reading, through nginx over straight", through / straight, 0.7)
                v.add("the same without X-Accel-Buffering", f"{lumps / straight:.2f}")
                times = gone(job, plain, a.n)
                print(f"{a.n} clients of nginx left: everything free after p50 {quantile(times, 0.5):.1f}, p99 {quantile(times, 0.99):.1f} ms")
                v.at_most("time to free, p99", quantile(times, 0.99), 100, "ms")
            finally:
                proxy.terminate()
        v.equal("blocks in use at the end", job.metrics()["kv_cache_usage_perc"], 0)
    return v.finish()


if __name__ == "__main__":
    raise SystemExit(main())
