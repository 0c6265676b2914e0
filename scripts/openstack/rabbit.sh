#!/usr/bin/env bash
# RabbitMQ on loopback, with its state in $WORK.
set -euo pipefail
. "$(dirname "$0")/env.sh"
mkdir -p "$WORK"/rabbit/{home,mnesia,log}
export HOME=$WORK/rabbit/home RABBITMQ_NODENAME=openstack@localhost RABBITMQ_MNESIA_BASE=$WORK/rabbit/mnesia RABBITMQ_LOG_BASE=$WORK/rabbit/log \
	RABBITMQ_PID_FILE=$WORK/rabbit/pid RABBITMQ_NODE_IP_ADDRESS=127.0.0.1 RABBITMQ_NODE_PORT=$RABBIT RABBITMQ_ENABLED_PLUGINS_FILE=$WORK/rabbit/plugins \
	ERL_EPMD_ADDRESS=127.0.0.1 RABBITMQ_CONF_ENV_FILE=/dev/null RABBITMQ_CONFIG_FILE=$WORK/rabbit/rabbitmq \
	RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1} +sbwt none"
echo '[].' >"$WORK/rabbit/plugins"
echo "listeners.tcp.1 = 127.0.0.1:$RABBIT" >"$WORK/rabbit/rabbitmq.conf"
start rabbit /usr/lib/rabbitmq/bin/rabbitmq-server
for _ in $(seq 600); do
	(exec 3<>"/dev/tcp/127.0.0.1/$RABBIT") 2>/dev/null && exit 0
	sleep 0.2
done
echo "openstack: RabbitMQ does not answer; see $WORK/log/rabbit.log" >&2
exit 1
