<?php
// Workerman with a timer for each connection, as its documentation has it for Server-Sent Events.

require_once dirname(__DIR__) . '/peers/vendor/autoload.php';

use Workerman\Connection\TcpConnection;
use Workerman\Protocols\Http\Request;
use Workerman\Protocols\Http\Response;
use Workerman\Protocols\Http\ServerSentEvents;
use Workerman\Timer;
use Workerman\Worker;

$port = getenv('BENCH_PORT');
Worker::$pidFile = sys_get_temp_dir() . "/ssekit-bench-workerman-$port.pid";
Worker::$logFile = '/dev/null';
$worker = new Worker("http://127.0.0.1:$port", ['socket' => ['backlog' => 4096]]);
$worker->onMessage = function (TcpConnection $connection, Request $request) {
    if ($request->path() !== '/events') {
        $connection->send('ok');
        return;
    }
    $connection->send(new Response(200, ['Content-Type' => 'text/event-stream'], "\r\n"));
    $number = 0;
    $timer = Timer::add(0.05, function () use ($connection, &$timer, &$number) {
        if ($connection->getStatus() !== TcpConnection::STATUS_ESTABLISHED) {
            Timer::del($timer);
            return;
        }
        $number++;
        $data = str_pad("@$number," . hrtime(true) . ',', 82, 'x');
        $connection->send(new ServerSentEvents(['data' => $data]));
    });
};
Worker::runAll();
