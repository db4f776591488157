# docker build -t wavemock .
# docker run --rm -p 127.0.0.1:8080:8080 wavemock
#
# For a container, the machine around it is another machine, so its control plane, /_mock, stays shut until it has a
# token to ask for; other containers get webhooks when their network is named:
# docker run --rm -p 127.0.0.1:8080:8080 wavemock serve --host 0.0.0.0 --control-token TOKEN --webhook-to 172.16.0.0/12

FROM python:3.13-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY openapi openapi
COPY contract_tests contract_tests
COPY mock_server mock_server
COPY reference_backend reference_backend
RUN python -m venv /opt/wavemock && /opt/wavemock/bin/pip install --no-cache-dir .

FROM python:3.13-slim
COPY --from=build /opt/wavemock /opt/wavemock
ENV PATH=/opt/wavemock/bin:$PATH
# /data is a place for --store, and for a volume: --store sqlite:////data/mock.db
RUN useradd --uid 10001 --home-dir /data --create-home wavemock
USER 10001
WORKDIR /data
EXPOSE 8080
# The control plane's own health may want a token; the documentation wants none. No proxy is asked, whatever is set.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["python", "-c", "\
import http.client; mock = http.client.HTTPConnection('127.0.0.1', 8080, timeout=4); \
mock.request('GET', '/docs/'); raise SystemExit(mock.getresponse().status != 200)"]
ENTRYPOINT ["wavemock"]
CMD ["serve", "--host", "0.0.0.0"]
