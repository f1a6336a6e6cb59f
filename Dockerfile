# The image of every service in docker-compose.yml but the database.
FROM python:3.13-slim
RUN useradd --create-home --uid 50000 rowledger
WORKDIR /opt/rowledger
COPY requirements.txt requirements.lock ./
RUN pip install --no-cache-dir -r requirements.txt -c requirements.lock
COPY pyproject.toml README.md ./
COPY plugins plugins
RUN pip install --no-cache-dir --no-deps -e . && python -m compileall -q plugins
COPY config config
COPY dags dags
COPY include include
RUN mkdir -p /var/lib/rowledger /opt/airflow && chown rowledger: /var/lib/rowledger /opt/airflow
USER rowledger
ENV AIRFLOW_HOME=/opt/airflow \
    AIRFLOW__CORE__DAGS_FOLDER=/opt/rowledger/dags \
    AIRFLOW__CORE__PLUGINS_FOLDER=/opt/rowledger/plugins \
    PYTHONPATH=/opt/rowledger/config:/opt/rowledger/plugins \
    ROWLEDGER_HOME=/var/lib/rowledger \
    ROWLEDGER_TEMPLATES=/opt/rowledger/include/templates
